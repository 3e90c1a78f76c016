"""Networks by name: small ones written here, torchvision's and other packages', the user's own by import path."""

from lrsearch.models.attention import separate_projections
from lrsearch.models.registry import build_model, input_shape, model_names
from lrsearch.models.weights import load_weights

__all__ = ["build_model", "input_shape", "load_weights", "model_names", "separate_projections"]
