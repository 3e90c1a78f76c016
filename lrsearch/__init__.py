"""lrsearch: search for the best low-rank compression of a trained neural network.

``compress`` makes one smaller network in process; ``search`` explores many on Ray; ``load_front`` reads what a
sweep found; ``rebuild`` turns a recipe and weights into a network again, ``apply_recipe`` a recipe and other dense
weights. Each is imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lrsearch.version import __version__

if TYPE_CHECKING:
    from lrsearch.compression import apply_recipe, compress
    from lrsearch.persistence import rebuild
    from lrsearch.results import load_front
    from lrsearch.sweeps import search

__all__ = ["__version__", "apply_recipe", "compress", "load_front", "rebuild", "search"]

_HOMES = {
    "apply_recipe": "compression",
    "compress": "compression",
    "rebuild": "persistence",
    "load_front": "results",
    "search": "sweeps",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lrsearch' has no attribute {name!r}")
    return getattr(import_module(f"lrsearch.{_HOMES[name]}"), name)
