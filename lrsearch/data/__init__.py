"""Data sets by name: the embedded digits, torchvision's, image folders, and the user's own by import path."""

from lrsearch.data.batches import Batches
from lrsearch.data.registry import data_names, load_data
from lrsearch.data.splits import SplitName, Splits

__all__ = ["Batches", "SplitName", "Splits", "data_names", "load_data"]
