"""From the ranks that were found to those that a budget allows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lrsearch.factorize import LayerShape, layer_cost
from lrsearch.factorize.ranks import Decomposition, of_rank, rank_cap
from lrsearch.methods.one_shot.candidates import Family, LayerTable, is_smaller, sizes
from lrsearch.methods.one_shot.cap import Caps
from lrsearch.methods.one_shot.timed import DENSE
from lrsearch.recipe import Factorization


def smaller_members(shape: LayerShape, decomposition: Decomposition) -> list[Factorization]:
    """The factorizations of rank 1, 2, ... that make a layer smaller."""
    members = []
    for rank in range(1, rank_cap(shape, decomposition) + 1):
        member = of_rank(shape, decomposition, rank)
        if not is_smaller(layer_cost(shape, member), layer_cost(shape, DENSE)):
            break
        members.append(member)
    return members


def by_rank(shape: LayerShape, members: list[Factorization], wanted: int = 1) -> Family:
    """The candidates of a layer as the allocator sees them: the error of a rank is the wanted rank over it.

    So the smallest possible largest error is the reciprocal of the largest factor by which all wanted ranks can be
    scaled within a budget, found by bisection; what rounding leaves is spent rank by rank.
    """
    measured = np.array([sizes(layer_cost(shape, member)) for member in members], dtype=np.int64).reshape(-1, 2)
    return Family(0, wanted / np.arange(1, len(members) + 1), measured, members.__getitem__)


def shares(
    caps: Caps, shapes: Mapping[str, LayerShape], members: Mapping[str, list[Factorization]]
) -> dict[str, npt.NDArray[np.float64]]:
    """What ranks 1, 2, ... and the dense layer cost, over what all layers may cost, for those that can be smaller.

    Each is (ranks + 1, caps). Where latency is capped, which is measured for some ranks, that of the others is
    interpolated.

    Raises:
        BudgetUnreachableError: the budget is smaller than what rank 1 everywhere would keep.
    """
    families = {name: [by_rank(shapes[name], found)] for name, found in members.items()}
    tables = {name: LayerTable(name, shapes[name], found, caps).candidates for name, found in families.items()}
    caps.allocate(list(tables.values()), "max")
    fixed = [table.costs[0] for table in tables.values() if len(table.errors) == 1]
    left = np.array([cap.allowed - cap.fixed for cap in caps.caps]) - sum(fixed, np.zeros(len(caps.caps)))
    found = {}
    for name, table in tables.items():
        if len(table.errors) > 1:
            known, ranks = 1 / table.errors[1:], np.arange(1, len(members[name]) + 1)
            smaller = [np.interp(ranks, known, column) for column in table.costs[1:].T]
            found[name] = np.vstack([np.stack(smaller, axis=1), table.costs[:1]]) / left
    return found
