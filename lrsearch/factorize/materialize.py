"""A factorized layer multiplied out: the dense layer that it stands for."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lrsearch.factorize.effective_weight import effective_weight
from lrsearch.factorize.layers import Layer


def materialize(factorized: nn.Module, layer: nn.Module) -> nn.Module:
    """The dense layer that computes what a chain of linear stages computes.

    Args:
        factorized: what ``factorize_layer`` made of ``layer``, trained further or not.
        layer: the dense layer; gives stride, padding, dilation and groups, and stays untouched.

    Returns:
        A copy of ``layer`` with the product of the stages' weights and the last stage's bias.

    Raises:
        TypeError: ``layer`` is no Conv2d or Linear, or a stage is neither of them nor a ``GroupedLinear``.
        ValueError: a stage before the last has a bias, or weight or bias of the product are not like the layer's.
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"expected a Conv2d or Linear layer, got {type(layer).__name__}")
    weight, bias = multiplied_out(factorized, layer)
    dense = copy.deepcopy(layer)
    with torch.no_grad():
        dense.weight.copy_(weight)
        if bias is not None and dense.bias is not None:
            dense.bias.copy_(bias)
    return dense


def multiplied_out(factorized: nn.Module, layer: Layer) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of ``materialize``'s layer, which raises the same."""
    chain = list(factorized) if isinstance(factorized, nn.Sequential) else [factorized]
    if any(getattr(stage, "bias", None) is not None for stage in chain[:-1]):
        raise ValueError("a stage before the last has a bias, which no dense layer can make up for at its borders")
    bias = getattr(chain[-1], "bias", None)
    if (bias is None) != (layer.bias is None):
        raise ValueError("either the stages or the dense layer have a bias, expected both or neither")
    with torch.no_grad():
        return effective_weight(chain, layer.weight.shape), bias
