"""Data sets by name: the embedded digits, torchvision's, image folders, and the user's own by import path."""

from lrsearch.data.batches import Batches
from lrsearch.data.registry import data_names, load_data
from lrsearch.data.splits import Splits

__all__ = ["Batches", "Splits", "data_names", "load_data"]
