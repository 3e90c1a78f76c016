"""How the bases of a layer follow the gradient flow of its weight.

``bug``: basis update and Galerkin, augmented (Ceruti, Kusch, Lubich 2022; Schotthöfer et al. 2022, Algorithm 1): the
bases take in what K and L gain, then S learns in them. ``parallel``: the same with the block of the gradient that both
new halves of the bases share dropped, so that it costs two products less (GeoLoRA, Schotthöfer et al. 2024, arXiv
2410.18720). ``fixed_rank``: K and L take a step, their bases replace the old ones (Ceruti, Lubich 2022); since that
projects the weight, the gradient of S takes a second pass. ``s_only``: the bases stay.

The bases learn by plain gradient steps, without momentum; only their span matters, so that the step of an augmented
integrator does not depend on the step size of K and L: [K - h G V | U] and [G V | U] span the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lrsearch.training.dlrt.gradients import Gradients, Move
from lrsearch.training.dlrt.orthonormal import extend

Integrator = Literal["bug", "parallel", "fixed_rank", "s_only"]
AUGMENTING: tuple[Integrator, ...] = ("bug", "parallel")
"""Those that leave more rank behind than they found."""


def augment(gradients: Gradients) -> Move:
    """``bug``: the weight stays exactly what it is, in bases of twice the rank; S sees the whole gradient."""

    def corner(left: Tensor, right: Tensor) -> Tensor:
        no_room = 0 in (left.shape[-1], right.shape[-1])
        return _zeros(left, right) if no_room else gradients.through(left, right)

    return _augmented(gradients, corner)


def augment_in_parallel(gradients: Gradients) -> Move:
    """``parallel``: as ``bug``, without the gradient's corner."""
    return _augmented(gradients, _zeros)


def replace_bases(gradients: Gradients, step: float, clip: float | None = None) -> Move:
    """``fixed_rank``: the bases of K and L after a step; the weight is projected onto them.

    Args:
        gradients: of the layer.
        step: the step size.
        clip: largest norm of both gradients together.
    """
    layer = gradients.layer
    core = layer.S.detach()
    left, right = step * gradients.left, step * gradients.right
    if clip is not None:
        norm = torch.hypot(gradients.left.norm(), gradients.right.norm())
        within = (clip / norm).clamp(max=1)
        left, right = within * left, within * right
    left = torch.linalg.qr(layer.U @ core - left).Q
    right = torch.linalg.qr(layer.V @ core.mT - right).Q
    return Move(left, right, left.mT @ layer.U, right.mT @ layer.V, None)


def _augmented(gradients: Gradients, corner: Callable[[Tensor, Tensor], Tensor]) -> Move:
    """The gradient of the augmented S in blocks: all but ``corner`` of the new columns are known from K and L."""
    layer = gradients.layer
    left, below = extend(layer.U, gradients.left)
    right, beside = extend(layer.V, gradients.right)
    above = torch.cat([gradients.core, beside.mT], -1)
    below = torch.cat([below, corner(left[..., layer.rank :], right[..., layer.rank :])], -1)
    padding = _padding(left, layer.rank), _padding(right, layer.rank)
    return Move(left, right, *padding, torch.cat([above, below], -2))


def _zeros(left: Tensor, right: Tensor) -> Tensor:
    return left.new_zeros(len(left), left.shape[-1], right.shape[-1])


def _padding(basis: Tensor, rank: int) -> Tensor:
    """B^T U, where the first ``rank`` columns of B are U."""
    return torch.eye(basis.shape[-1], rank, dtype=basis.dtype, device=basis.device).expand(len(basis), -1, -1)
