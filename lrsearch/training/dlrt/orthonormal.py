"""Orthonormal bases that take in new columns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_WORTH_BLOCKS = 2**17
"""The number of new entries from which on two blocks are faster than one factorisation, on a CPU."""
_LARGEST_LEAK = 0.5
"""Of ||C||^2, so that the condition of I - C^T C is at most 2."""


class Extension(NamedTuple):
    """An orthonormal basis that took in new columns X.

    Attributes:
        basis: [U | N], U the r columns that it had, (G, n, min(n, r + k)).
        coefficients: N^T X.
    """

    basis: Tensor
    coefficients: Tensor


def extend(old: Tensor, gained: Tensor) -> Extension:
    """Take in new columns, as far as there is room; those that are in the span already leave arbitrary ones in N.

    However often a basis is extended and rotated, it stays orthonormal to a few hundred times the rounding unit.

    Args:
        old: U, (G, n, r), orthonormal up to rounding.
        gained: X, (G, n, k).
    """
    # A GPU would have to be waited for to know whether blocks do.
    large = gained.device.type == "cpu" and gained.shape[-2] * gained.shape[-1] >= _WORTH_BLOCKS
    found = in_blocks(old, gained) if large and old.shape[-1] + gained.shape[-1] <= old.shape[-2] else None
    return found or at_once(old, gained)


def at_once(old: Tensor, gained: Tensor) -> Extension:
    """``extend`` by a Householder factorisation of all columns, the old ones too, whatever they are."""
    rank = old.shape[-1]
    basis, factor = torch.linalg.qr(torch.cat([old.mT, gained.mT], -2).mT)
    signs = factor.diagonal(dim1=-2, dim2=-1)[..., :rank].sign()
    basis[..., :rank] *= signs[..., None, :]
    return Extension(basis, factor[..., rank:, rank:])


def in_blocks(old: Tensor, gained: Tensor) -> Extension | None:
    """``extend`` by block Gram-Schmidt done twice, where there is room for all columns; U is left as it is.

    X - U U^T X = Q R by Householder. The worse its condition, the less is Q orthogonal to U, but it is always
    orthonormal: with C = U^T Q and the Cholesky factor L L^T = I - C^T C, so is N = (Q - U C) L^-T, to U too.
    Source: Carson, Lund, Rozložník, "The stability of block variants of classical Gram-Schmidt" (2021), BCGS-PIP.

    Returns:
        None where rounding errors have added up in U, X hardly leaves its span, or either is not finite.
    """
    rank, new = old.shape[-1], gained.shape[-1]
    drift = old.mT @ old.sum(-1, keepdim=True) - 1  # (U^T U - I) 1
    q, factor = torch.linalg.qr(torch.baddbmm(gained.mT, gained.mT @ old, old.mT, alpha=-1).mT)
    leak = old.mT @ q
    close = drift.abs().max() < 16 * rank**0.5 * torch.finfo(old.dtype).eps
    if not (close and leak.square().sum((-2, -1)).max() < _LARGEST_LEAK):
        return None
    identity = torch.eye(new, dtype=old.dtype, device=old.device).expand(len(old), -1, -1)
    lower = torch.linalg.cholesky(identity - leak.mT @ leak)
    inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
    basis = old.new_empty(len(old), rank + new, old.shape[-2])
    basis[:, :rank] = old.mT
    basis[:, rank:] = inverse @ torch.baddbmm(q.mT, leak.mT, old.mT, alpha=-1)
    return Extension(basis.mT, factor)  # N^T X = L^T R, but C R is no more than rounding
