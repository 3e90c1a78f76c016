"""The table that an allocation chooses from: for each layer every factorization that makes it smaller."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lrsearch.allocate import Candidates
from lrsearch.factorize import LayerCost, LayerShape, layer_cost
from lrsearch.methods.one_shot.cap import Caps
from lrsearch.methods.one_shot.errors import ErrorMeasure
from lrsearch.methods.one_shot.timed import DENSE, isotonic
from lrsearch.recipe import Factorization

NOT_SMALLER = "no factorization makes it smaller"
_TIMED = 10
"""How many ranks of a family are timed where time counts."""
_VECTOR = 16
CHOSEN = "the budget leaves it dense"


@dataclass(frozen=True)
class Family:
    """Factorizations of one layer that differ in rank alone.

    Attributes:
        subspaces: their common number of subspaces, 0 where they have none.
        errors: (members,).
        sizes: (members, 2), parameters and multiply-adds, as ``LayerCost`` has them.
        member: index -> factorization.
    """

    subspaces: int
    errors: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.int64]
    member: Callable[[int], Factorization]


class LayerTable:
    """Candidates of one layer: dense first, then the members of each family in turn."""

    def __init__(self, name: str, shape: LayerShape, families: Sequence[Family], caps: Caps) -> None:
        measured = np.concatenate([[sizes(layer_cost(shape, DENSE))], *(family.sizes for family in families)])
        costs: npt.NDArray[np.int64] = (measured * (1, 2))[:, caps.sizes].astype(np.int64)
        self.candidates = Candidates(
            np.concatenate([[0.0], *(family.errors for family in families)]),
            costs,
            np.concatenate([[0], *(np.full(len(family.errors), family.subspaces) for family in families)]),
        )
        self._families = families
        self._starts = np.cumsum([1, *(len(family.errors) for family in families)])
        self._rows = np.arange(len(self.candidates.errors))
        if caps.timed is not None:
            self._restrict(name, caps)

    def factorization(self, index: int) -> Factorization:
        """The factorization behind a candidate; a dense one says why."""
        if index == 0:
            return Factorization(kind="dense", reason=CHOSEN if len(self._rows) > 1 else NOT_SMALLER)
        row = self._rows[index]
        family = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._families[family].member(int(row - self._starts[family]))

    def _restrict(self, name: str, caps: Caps) -> None:
        """Leave a few members of each family, those that are faster than the dense layer, time their last cost."""
        dense = caps.latencies(name, [DENSE])[0]
        rows, times = [0], [dense]
        for start, family in zip(self._starts, self._families, strict=False):
            places = spread_ranks(len(family.errors))
            taken = isotonic(np.array(caps.latencies(name, [family.member(place) for place in places]), dtype=float))
            faster = [
                (int(start) + place, math.ceil(time)) for place, time in zip(places, taken, strict=True) if time < dense
            ]
            rows += [row for row, _ in faster]
            times += [time for _, time in faster]
        self._rows = np.array(rows)
        whole = self.candidates
        costs = np.column_stack([whole.costs[rows], times])
        self.candidates = Candidates(whole.errors[rows], costs, whole.groups[rows])


def spread_ranks(count: int) -> list[int]:
    """Indices of some of the ranks 1 to ``count``, evenly apart in ratio, whole vectors of channels if possible."""
    ranks = {round(rank) for rank in np.geomspace(1, count, _TIMED)} if count else set()
    whole = {rank // _VECTOR * _VECTOR or rank for rank in ranks}
    return sorted(rank - 1 for rank in whole)


def is_smaller(cost: LayerCost, dense: LayerCost) -> bool:
    """Whether a factorized layer has fewer parameters than the dense one and no more multiply-adds."""
    return cost.params < dense.params and (cost.macs or 0) <= (dense.macs or 0)


def svd_candidates(
    shape: LayerShape,
    spectra: Mapping[tuple[int, int], Tensor],
    norm: float,
    measure: ErrorMeasure,
) -> list[Family]:
    """Every SVD factorization of a layer that makes it smaller.

    Args:
        shape: of the layer.
        spectra: (scheme, subspaces) -> singular values of the slices, as ``singular_values`` returns them.
        norm: of the whole weight, folded by scheme 0: its largest singular value.
        measure: the error of each rank.
    """
    dense = layer_cost(shape, DENSE)
    families = []
    for (scheme, subspaces), values in spectra.items():
        # Both stages grow in proportion to the rank, so that rank 1 prices them all.
        first = layer_cost(shape, svd(scheme, subspaces, 1))
        ranks = smaller_ranks(first, dense)[: values.shape[-1]]
        errors = measure(values.numpy(), norm)[1 : len(ranks) + 1]
        families.append(Family(subspaces, errors, np.outer(ranks, sizes(first)), _svd_member(scheme, subspaces)))
    return families


def sizes(cost: LayerCost) -> tuple[int, int]:
    """A layer's cost as numbers; multiply-adds that nobody knows count nothing."""
    return cost.params, cost.macs or 0


def smaller_ranks(first: LayerCost, dense: LayerCost) -> npt.NDArray[np.int64]:
    """The ranks 1, 2, ... at which an SVD factorization is still smaller, given its cost at rank 1."""
    count = (dense.params - 1) // first.params
    if first.macs and dense.macs is not None:
        count = min(count, dense.macs // first.macs)
    return np.arange(1, count + 1)


def svd(scheme: int, subspaces: int, rank: int) -> Factorization:
    """The SVD factorization of ``subspaces`` slices of equal rank."""
    return Factorization.model_validate(
        {"kind": "svd", "ranks": (rank,) * subspaces, "groups": subspaces, "scheme": scheme}
    )


def _svd_member(scheme: int, subspaces: int) -> Callable[[int], Factorization]:
    return lambda index: svd(scheme, subspaces, index + 1)
