"""The pair that every method's output is: a recipe as JSON and weights as safetensors, written and read back."""

from __future__ import annotations

import copy
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_model
from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import restructure
from lrsearch.files import read_json, replacing, write_json
from lrsearch.methods.base import Compressed
from lrsearch.models import build_model
from lrsearch.recipe import Recipe

HISTORY = "history.json"
RECIPE = "recipe.json"
WEIGHTS = "weights.safetensors"


def save_compressed(model: nn.Module, recipe: Recipe, folder: Path) -> None:
    """Write ``recipe.json`` and ``weights.safetensors``; the recipe last, so that it vouches for both."""
    save_weights(model, folder / WEIGHTS)
    with replacing(folder / RECIPE) as temporary:
        recipe.save(temporary)


def save_compression(compressed: Compressed, folder: Path) -> None:
    """``save_compressed``, and before it what the method has to say of its work as ``history.json``."""
    if compressed.metrics or compressed.history:
        write_json(folder / HISTORY, {"metrics": dict(compressed.metrics), **compressed.history})
    save_compressed(compressed.model, compressed.recipe, folder)


def load_compression(folder: Path) -> Compressed | None:
    """What ``save_compression`` wrote, its model on the CPU and in eval mode; None where there is none."""
    if not (folder / RECIPE).exists():
        return None
    history = read_json(folder / HISTORY, "delete the folder to compress again") or {"metrics": {}}
    return Compressed(rebuild(folder), Recipe.load(folder / RECIPE), history.pop("metrics"), history)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's state as safetensors, atomically; tensors shared by several modules are stored once."""
    with replacing(path) as temporary:
        save_model(model, str(temporary))


def rebuild(
    recipe: Path | str | Recipe, weights: Path | str | None = None, model: nn.Module | None = None
) -> nn.Module:
    """The compressed network that a recipe describes, in eval mode.

    Args:
        recipe: a recipe, its file, or the folder that holds ``recipe.json`` and ``weights.safetensors``.
        weights: a safetensors file; None takes the one beside the recipe, or none for a recipe given as object.
        model: the dense network, for a recipe without an architecture name; it stays untouched.

    Raises:
        LrsearchError: a file is missing or unreadable, or recipe, weights and model do not fit together.
    """
    if not isinstance(recipe, Recipe):
        path = Path(recipe)
        path = path / RECIPE if path.is_dir() else path
        weights = weights if weights is not None else path.with_name(WEIGHTS)
        recipe = Recipe.load(path)
    if model is None and recipe.architecture is None:
        raise LrsearchError("the recipe names no architecture, expected the dense network as `model`")
    network = copy.deepcopy(model) if model is not None else build_model(recipe.architecture or {})
    restructure(network, recipe.layers)
    if weights is not None:
        read_weights(network, Path(weights))
    return network.eval()


def read_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file that holds exactly the model's state.

    Raises:
        LrsearchError: the file is missing, damaged, or belongs to another network.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LrsearchError(f"weights {path} cannot be read: {error}") from error
    own = model.state_dict()
    shared = {key for key in own if key not in state}
    aliases = {tensor.data_ptr() for key, tensor in own.items() if key in state}
    missing = [key for key in sorted(shared) if own[key].data_ptr() not in aliases]
    unknown = sorted(state.keys() - own.keys())
    if missing or unknown:
        key, problem = (missing[0], "lacks") if missing else (unknown[0], "has an unknown")
        raise LrsearchError(f"weights {path} do not fit the network: the file {problem} key {key}")
    for key, tensor in state.items():
        if own[key].shape != tensor.shape:
            raise LrsearchError(
                f"weights {path} do not fit the network: {key} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(own[key].shape)}"
            )
    model.load_state_dict(state, strict=False)
