"""Which ranks the layers keep, and how they come to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lrsearch.errors import TrialFailedError
from lrsearch.training.dlrt.layers import LowRankLayer
from lrsearch.training.dlrt.orthonormal import at_once
from lrsearch.training.dlrt.transport import transport

Spectrum: TypeAlias = npt.NDArray[np.float64]
"""Singular values at hand, descending; of a grouped layer, the roots of the sums of squares over its groups."""
ChooseRanks: TypeAlias = Callable[[Mapping[str, Spectrum]], Mapping[str, int]]
"""Spectra of all layers -> the rank of each."""


@dataclass(frozen=True)
class PermittedRanks:
    """The ranks that a layer may have.

    Attributes:
        ranks: ascending, at least one.
    """

    ranks: tuple[int, ...]

    @classmethod
    def between(cls, low: int, high: int, tile: int = 1) -> PermittedRanks:
        """From ``low`` to ``high``, only multiples of ``tile`` where there are any; ``high`` where it is below."""
        ranks = range(min(low, high), high + 1)
        return cls(tuple(rank for rank in ranks if rank % tile == 0) or tuple(ranks))

    def at_least(self, rank: int) -> int:
        """The smallest that reaches ``rank``, or the largest of all."""
        return next((permitted for permitted in self.ranks if permitted >= rank), self.ranks[-1])


def rank_within(spectrum: Sequence[float] | Spectrum, tau: float) -> int:
    """The smallest rank whose truncation loses less than ``tau`` of the Frobenius norm.

    r' = min{j >= 1 : (sum of squares from j + 1 on)^(1/2) < tau ||sigma||_2}, or all where nothing is below.
    """
    tails = tail_norms(spectrum)
    below = np.flatnonzero(tails[1:] < tau * tails[0])
    return int(below[0]) + 1 if len(below) else len(tails) - 1


def tail_norms(spectrum: Sequence[float] | Spectrum) -> Spectrum:
    """Frobenius norm of what truncation to rank j loses, for j = 0, ..., len(spectrum)."""
    squares = np.asarray(spectrum, dtype=np.float64)[::-1] ** 2
    tails: Spectrum = np.sqrt(np.append(0.0, np.cumsum(squares))[::-1])
    return tails


class _Decomposition(NamedTuple):
    left: Tensor
    values: Tensor
    right: Tensor


def truncate(
    layers: Mapping[str, LowRankLayer], choose: ChooseRanks, state: Mapping[Tensor, dict[str, Tensor]]
) -> None:
    """Rotate every layer's bases to its singular vectors and keep as many as chosen.

    W moves by the root of the sum of squares of the dropped singular values, the least possible. Where a rank
    above those at hand is chosen, directions that carry nothing yet are added.

    Args:
        layers: by name.
        choose: the ranks.
        state: of the optimizer; that of each S follows it.

    Raises:
        TrialFailedError: the weight of a layer is not finite.
    """
    decomposed = {name: _decompose(name, layer.S.detach()) for name, layer in layers.items()}
    ranks = choose({name: _spectrum(found.values) for name, found in decomposed.items()})
    for name, layer in layers.items():
        _keep(layer, decomposed[name], ranks[name], state.get(layer.S, {}))


def _decompose(name: str, core: Tensor) -> _Decomposition:
    try:
        left, values, right = torch.linalg.svd(core, full_matrices=False)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise TrialFailedError(f"the weight of layer {name} is not finite") from error
    return _Decomposition(left, values, right.mT)


def _spectrum(values: Tensor) -> Spectrum:
    spectrum: Spectrum = values.square().sum(0).sqrt().double().cpu().numpy()
    return spectrum


def _keep(layer: LowRankLayer, found: _Decomposition, rank: int, state: dict[str, Tensor]) -> None:
    left, right = found.left[..., :rank], found.right[..., :rank]
    core = found.values[..., :rank].diag_embed()
    transport(state, left.mT, right.mT)
    layer.set_factors((left.mT @ layer.U.mT).mT, core, (right.mT @ layer.V.mT).mT)
    missing = rank - layer.rank
    if missing > 0:
        widen(layer, missing, state)


def widen(layer: LowRankLayer, by: int, state: dict[str, Tensor]) -> None:
    """Add ``by`` directions of singular value 0."""
    old = torch.eye(layer.rank + by, layer.rank, dtype=layer.U.dtype, device=layer.U.device)
    core = old @ layer.S.detach() @ old.mT
    transport(state, old, old)
    layer.set_factors(_wider(layer.U, by), core, _wider(layer.V, by))


def _wider(basis: Tensor, by: int) -> Tensor:
    """More orthonormal columns: of all unit vectors those farthest from the span, made orthogonal to it."""
    free = (1 - basis.square().sum(-1)).topk(by, dim=-1).indices
    units = torch.nn.functional.one_hot(free, basis.shape[-2]).mT.to(basis.dtype)
    return at_once(basis, units).basis
