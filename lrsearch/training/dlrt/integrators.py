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

from typing import Literal

import torch
from torch import Tensor

from lrsearch.training.dlrt.gradients import Gradients, Move

Integrator = Literal["bug", "parallel", "fixed_rank", "s_only"]
AUGMENTING: tuple[Integrator, ...] = ("bug", "parallel")
"""Those that leave more rank behind than they found."""


def augment(gradients: Gradients) -> Move:
    """``bug``: the weight stays exactly what it is, in bases of twice the rank; S sees the whole gradient."""
    left, right, new_left, new_right = _augmented(gradients)
    no_room = 0 in (new_left.shape[-1], new_right.shape[-1])
    corner = _zeros(new_left, new_right) if no_room else gradients.through(new_left, new_right)
    return _augmenting_move(gradients, left, right, corner)


def augment_in_parallel(gradients: Gradients) -> Move:
    """``parallel``: as ``bug``, without the gradient's corner."""
    left, right, new_left, new_right = _augmented(gradients)
    return _augmenting_move(gradients, left, right, _zeros(new_left, new_right))


def replace_bases(gradients: Gradients, step: float, clip: float | None = None) -> Move:
    """``fixed_rank``: the bases of K and L after a step; the weight is projected onto them.

    Args:
        gradients: of the layer.
        step: the step size.
        clip: largest norm of both gradients together.
    """
    layer = gradients.layer
    core = layer.S.detach()
    if clip is not None:
        norm = torch.hypot(gradients.left.norm(), gradients.right.norm())
        step *= min(1.0, clip / float(norm.clamp_min(1e-30)))
    left = torch.linalg.qr(layer.U @ core - step * gradients.left).Q
    right = torch.linalg.qr(layer.V @ core.mT - step * gradients.right).Q
    return Move(left, right, left.mT @ layer.U, right.mT @ layer.V, None)


def _augmented(gradients: Gradients) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The augmented bases, and their new columns."""
    layer = gradients.layer
    left, right = _basis(layer.U, gradients.left), _basis(layer.V, gradients.right)
    return left, right, left[..., layer.rank :], right[..., layer.rank :]


def _basis(old: Tensor, gained: Tensor) -> Tensor:
    """An orthonormal basis of both, as far as there is room; its first columns are the old ones, made orthonormal anew.

    So rounding errors do not add up over the steps.
    """
    found = torch.linalg.qr(torch.cat([old, gained], -1))
    basis: Tensor = found.Q
    signs = found.R.diagonal(dim1=-2, dim2=-1).sign()
    basis[..., : old.shape[-1]] *= signs[..., None, : old.shape[-1]]
    return basis


def _augmenting_move(gradients: Gradients, left: Tensor, right: Tensor, corner: Tensor) -> Move:
    """The gradient of the augmented S in blocks: all but the corner are known from K and L."""
    rank = gradients.layer.rank
    below = left[..., rank:].mT @ gradients.left
    beside = gradients.right.mT @ right[..., rank:]
    core = torch.cat([torch.cat([gradients.core, beside], -1), torch.cat([below, corner], -1)], -2)
    return Move(left, right, _padding(left, rank), _padding(right, rank), core)


def _zeros(left: Tensor, right: Tensor) -> Tensor:
    return left.new_zeros(len(left), left.shape[-1], right.shape[-1])


def _padding(basis: Tensor, rank: int) -> Tensor:
    """B^T U, where the first ``rank`` columns of B are U."""
    return torch.eye(basis.shape[-1], rank, dtype=basis.dtype, device=basis.device).expand(len(basis), -1, -1)
