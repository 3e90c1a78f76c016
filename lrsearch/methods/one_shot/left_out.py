"""Layers that a method leaves dense for where they stand in the network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from lrsearch.factorize import LayerShape
from lrsearch.factorize.shortcuts import find_shortcuts


def stem(model: nn.Module, layers: Mapping[str, LayerShape]) -> dict[str, str]:
    """The first convolution, with the reason why it stays dense."""
    return _at(model, layers, nn.Conv2d, 0, "it is the stem, the network's first convolution")


def classifier(model: nn.Module, layers: Mapping[str, LayerShape]) -> dict[str, str]:
    """The last Linear layer, with the reason why it stays dense."""
    return _at(model, layers, nn.Linear, -1, "it is the classifier, the network's last Linear layer")


def shortcuts(model: nn.Module, layers: Mapping[str, LayerShape]) -> dict[str, str]:
    """The convolutions of shortcuts, with the reason why they stay dense."""
    return {name: "it is the convolution of a shortcut" for name in find_shortcuts(model) if name in layers}


def _at(
    model: nn.Module, layers: Mapping[str, LayerShape], kind: type[nn.Module], position: int, reason: str
) -> dict[str, str]:
    names = [name for name, module in model.named_modules() if isinstance(module, kind)]
    return {names[position]: reason} if names and names[position] in layers else {}
