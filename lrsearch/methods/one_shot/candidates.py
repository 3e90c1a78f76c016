"""The table that an allocation chooses from: for each layer every factorization that makes it smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lrsearch.allocate import Candidates
from lrsearch.factorize import LayerCost, LayerShape, layer_cost
from lrsearch.methods.one_shot.cap import DENSE
from lrsearch.methods.one_shot.errors import ErrorMeasure
from lrsearch.recipe import Factorization

NOT_SMALLER = "no factorization makes it smaller"
CHOSEN = "the budget leaves it dense"


@dataclass(frozen=True)
class Family:
    """Factorizations of one layer that differ in rank alone.

    Attributes:
        subspaces: their common number of subspaces, 0 where they have none.
        errors, costs: one entry for each member.
        member: index -> factorization.
    """

    subspaces: int
    errors: npt.NDArray[np.float64]
    costs: npt.NDArray[np.int64]
    member: Callable[[int], Factorization]


class LayerTable:
    """Candidates of one layer: dense first, then the members of each family in turn."""

    def __init__(self, dense_cost: int, families: Sequence[Family]) -> None:
        self._families = families
        self._starts = np.cumsum([1, *(len(family.costs) for family in families)])
        self.candidates = Candidates(
            np.concatenate([[0.0], *(family.errors for family in families)]),
            np.concatenate([[dense_cost], *(family.costs for family in families)]),
            np.concatenate([[0], *(np.full(len(family.costs), family.subspaces) for family in families)]),
        )

    def factorization(self, index: int) -> Factorization:
        """The factorization behind a candidate; a dense one says why."""
        if index == 0:
            reason = CHOSEN if len(self.candidates.costs) > 1 else NOT_SMALLER
            return Factorization(kind="dense", reason=reason)
        family = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._families[family].member(index - int(self._starts[family]))


def is_smaller(cost: LayerCost, dense: LayerCost) -> bool:
    """Whether a factorized layer has fewer parameters than the dense one and no more multiply-adds."""
    return cost.params < dense.params and (cost.macs or 0) <= (dense.macs or 0)


def svd_candidates(
    shape: LayerShape,
    spectra: Mapping[tuple[int, int], Tensor],
    norm: float,
    unit: Callable[[LayerCost], int],
    measure: ErrorMeasure,
) -> LayerTable:
    """Every SVD factorization of a layer that makes it smaller.

    Args:
        shape: of the layer.
        spectra: (scheme, subspaces) -> singular values of the slices, as ``singular_values`` returns them.
        norm: of the whole weight, folded by scheme 0: its largest singular value.
        unit: a layer's cost in the unit of the budget.
        measure: the error of each rank.
    """
    dense = layer_cost(shape, DENSE)
    families = []
    for (scheme, subspaces), values in spectra.items():
        # Both stages grow in proportion to the rank, so that rank 1 prices them all.
        first = layer_cost(shape, svd(scheme, subspaces, 1))
        ranks = smaller_ranks(first, dense)[: values.shape[-1]]
        errors = measure(values.numpy(), norm)[1 : len(ranks) + 1]
        families.append(Family(subspaces, errors, ranks * unit(first), _svd_member(scheme, subspaces)))
    return LayerTable(unit(dense), families)


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
