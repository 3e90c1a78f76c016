"""The weight that a factorized layer applies: the product of its stages."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lrsearch.factorize.channel_gather import ChannelGather
from lrsearch.factorize.grouped_linear import GroupedLinear


def effective_weight(sequence: Iterable[nn.Module], shape: torch.Size) -> Tensor:
    """The weight of the single layer that computes what a chain of stages does, differentiable in all of them.

    Args:
        sequence: as ``build_layer`` makes it.
        shape: of the dense layer's weight, (S, C / groups, height, width) or (S, C).

    Raises:
        TypeError: a stage is no Conv2d, Linear or ``GroupedLinear``, nor a ``ChannelGather`` before them.
        ValueError: the product has another shape.
    """
    first, *rest = sequence
    order = first.index if isinstance(first, ChannelGather) else None
    if order is not None:
        first, *rest = rest
    weight, groups = _kernel(first)
    for stage in rest:
        weight, groups = _product(weight, groups, *_kernel(stage))
    if order is not None:
        weight = _ungathered(weight, groups, order)
    if weight.shape != (*shape, 1, 1)[:4]:
        raise ValueError(f"the stages multiply out to {tuple(weight.shape)}, expected {tuple(shape)}")
    return weight.reshape(shape)


def _kernel(stage: nn.Module) -> tuple[Tensor, int]:
    """The weight (S, C / groups, height, width) of a stage, and its groups."""
    if not isinstance(stage, (nn.Conv2d, nn.Linear, GroupedLinear)):
        raise TypeError(f"expected Conv2d and Linear stages, got {type(stage).__name__}")
    groups = 1 if isinstance(stage, nn.Linear) else stage.groups
    return (stage.weight if stage.weight.dim() == 4 else stage.weight[:, :, None, None]), groups


def _product(first: Tensor, inner: int, second: Tensor, outer: int) -> tuple[Tensor, int]:
    """One kernel for two in a row and its groups ``g``: what both keep apart.

    One of the two is cut ``m`` times finer. Each kernel axis belongs to one of them, so that the sizes along it only
    ever multiply by 1.
    """
    common = min(inner, outer)
    if max(inner, outer) % common:
        raise ValueError(f"stages of {inner} and {outer} groups do not nest")
    finer = max(inner, outer) // common
    hidden = first.shape[0] // (common * finer)
    slices = first.reshape(common, finer, hidden, *first.shape[1:])
    if inner >= outer:  # slices of the inputs, which the second adds up
        combining = second.reshape(common, -1, finer, hidden, *second.shape[2:])
        product = torch.einsum("gsmrhw,gmrcxy->gsmchxwy", combining, slices)
    else:  # slices of the outputs, each made from a part of the hidden channels
        combining = second.reshape(common, finer, -1, hidden, *second.shape[2:])
        product = torch.einsum("gmsrhw,gmrcxy->gmschxwy", combining, slices)
    height, width = first.shape[2] * second.shape[2], first.shape[3] * second.shape[3]
    return product.reshape(second.shape[0], -1, height, width), common


def _ungathered(weight: Tensor, groups: int, order: Tensor) -> Tensor:
    """The weight for channels as they come, from one for channels put into an order within their groups."""
    positions = order.reshape(groups, -1).argsort(dim=1)
    blocks = weight.reshape(groups, -1, *weight.shape[1:])
    return blocks.take_along_dim(positions[:, None, :, None, None], dim=2).reshape(weight.shape)
