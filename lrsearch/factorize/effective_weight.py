"""The weight that a factorized layer applies: the product of its stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def effective_weight(sequence: nn.Sequential, shape: torch.Size) -> Tensor:
    """The weight of the single layer that computes what a chain of stages does, differentiable in all of them.

    Args:
        sequence: as ``build_layer`` makes it.
        shape: of the dense layer's weight, (S, C / groups, height, width) or (S, C).
    """
    stages = [(_as_kernel(stage.get_parameter("weight")), int(getattr(stage, "groups", 1))) for stage in sequence]
    product = _block_diagonal(*stages[0])
    for weight, groups in stages[1:]:
        # Each kernel axis belongs to one stage, so that the sizes along it only ever multiply by 1.
        outer = weight.reshape(groups, -1, *weight.shape[1:])
        inner = product.reshape(groups, -1, *product.shape[1:])
        product = torch.einsum("gsmhw,gmcxy->gschxwy", outer, inner).flatten(5).flatten(3, 4).flatten(0, 1)
    groups = product.shape[1] // shape[1]
    blocks = product.reshape(groups, shape[0] // groups, groups, shape[1], -1)
    own: Tensor = blocks.diagonal(dim1=0, dim2=2).movedim(-1, 0)
    return own.reshape(shape)


def _as_kernel(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 4 else weight[:, :, None, None]


def _block_diagonal(weight: Tensor, groups: int) -> Tensor:
    """The weight of an ungrouped convolution that does the same."""
    blocks = weight.reshape(groups, -1, *weight.shape[1:])
    identity = torch.eye(groups, dtype=weight.dtype, device=weight.device)
    return torch.einsum("gschw,gf->gsfchw", blocks, identity).flatten(2, 3).flatten(0, 1)
