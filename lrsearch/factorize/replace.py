"""Putting factorized layers into a network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize.build import build_layer
from lrsearch.recipe import Factorization


def replace_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Put modules in the places of those of these names, in place.

    Raises:
        LrsearchError: the network has no module of such a name.
    """
    for name, layer in layers.items():
        _find(model, name)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)


def copy_with(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of a network with other modules in the places of those of these names.

    The replaced modules are never copied, so that the copy takes no more memory than what it keeps.

    Raises:
        LrsearchError: the network has no module of such a name.
    """
    copies: dict[int, Any] = {id(_find(model, name)): layer for name, layer in layers.items()}
    return copy.deepcopy(model, copies)


def restructure(model: nn.Module, layers: Mapping[str, Factorization]) -> None:
    """Give a network the structure that a recipe describes, in place; weights are to be loaded afterwards.

    Raises:
        LrsearchError: a layer of the recipe is not in the network, or its factorization does not fit it.
    """
    built = {}
    for name, factorization in layers.items():
        module = _find(model, name)
        if factorization.kind == "dense":
            continue
        try:
            built[name] = build_layer(module, factorization)
        except (TypeError, ValueError) as error:
            raise LrsearchError(f"the recipe does not fit layer {name!r} of the network: {error}") from error
    replace_layers(model, built)


def _find(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise LrsearchError(f"the recipe does not fit the network: it has no layer {name!r}") from error
