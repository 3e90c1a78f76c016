"""The optimizer's memory of S, carried from one pair of bases to another."""

from __future__ import annotations

from collections.abc import MutableMapping

from torch import Tensor

_FIRST_MOMENTS = ("momentum_buffer", "exp_avg")
_SECOND_MOMENT = "exp_avg_sq"


def transport(state: MutableMapping[str, Tensor], left: Tensor, right: Tensor) -> None:
    """Carry momentum or Adam's moments of S along with S -> left S right^T, in place of the old.

    First moments are gradients in the old bases, so that they move as S does. Of second moments only the size of
    each entry is known: v -> (left sqrt(v) right^T)^2.

    Args:
        state: the optimizer's entry for S; may be empty.
        left: (..., new rank, old rank).
        right: likewise.
    """
    for name in _FIRST_MOMENTS:
        moment = state.get(name)
        if moment is not None:
            state[name] = left @ moment @ right.mT
    if _SECOND_MOMENT in state:
        state[_SECOND_MOMENT] = (left @ state[_SECOND_MOMENT].sqrt() @ right.mT).square()
