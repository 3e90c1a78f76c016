"""A factorized layer multiplied out: the dense layer that it stands for."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lrsearch.factorize.grouped_linear import GroupedLinear
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
    chain = list(factorized) if isinstance(factorized, nn.Sequential) else [factorized]
    if any(getattr(stage, "bias", None) is not None for stage in chain[:-1]):
        raise ValueError("a stage before the last has a bias, which no dense layer can make up for at its borders")
    weight, groups = _kernel(chain[0])
    for stage in chain[1:]:
        weight, groups = _product(weight, groups, *_kernel(stage))
    if weight.flatten(1).shape != layer.weight.flatten(1).shape:
        raise ValueError(f"the stages multiply out to {tuple(weight.shape)}, expected {tuple(layer.weight.shape)}")
    bias = getattr(chain[-1], "bias", None)
    if (bias is None) != (layer.bias is None):
        raise ValueError("either the stages or the dense layer have a bias, expected both or neither")
    dense = copy.deepcopy(layer)
    with torch.no_grad():
        dense.weight.copy_(weight.reshape(layer.weight.shape))
        if bias is not None and dense.bias is not None:
            dense.bias.copy_(bias)
    return dense


def _kernel(stage: nn.Module) -> tuple[Tensor, int]:
    """The weight (S, C / groups, height, width) of a stage, and its groups."""
    if not isinstance(stage, (nn.Conv2d, nn.Linear, GroupedLinear)):
        raise TypeError(f"expected Conv2d and Linear stages, got {type(stage).__name__}")
    groups = 1 if isinstance(stage, nn.Linear) else stage.groups
    weight = stage.weight.detach()
    return (weight if weight.dim() == 4 else weight[:, :, None, None]), groups


def _product(first: Tensor, inner: int, second: Tensor, outer: int) -> tuple[Tensor, int]:
    """One kernel for two in a row, where one's groups are a part of the other's and each axis is owned by one.

    With ``g`` common groups, ``m`` finer groups in each, which both stages or one of them keep apart.
    """
    common = min(inner, outer)
    if max(inner, outer) % common:
        raise ValueError(f"stages of {inner} and {outer} groups do not nest")
    finer = max(inner, outer) // common
    height, width = first.shape[2] * second.shape[2], first.shape[3] * second.shape[3]
    hidden = first.shape[0] // (common * finer)
    if inner >= outer:  # slices of the inputs, which the second stage adds up
        left = second.reshape(common, -1, finer, hidden, *second.shape[2:])
        right = first.reshape(common, finer, hidden, *first.shape[1:])
        product = torch.einsum("gsmrab,gmrcde->gsmcadbe", left, right)
    else:  # slices of the outputs, each made from its own part of the hidden channels
        left = second.reshape(common, finer, -1, hidden, *second.shape[2:])
        right = first.reshape(common, finer, hidden, *first.shape[1:])
        product = torch.einsum("gmsrab,gmrcde->gmscadbe", left, right)
    return product.reshape(second.shape[0], -1, height, width), common
