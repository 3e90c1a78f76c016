"""Output errors of a layer's families of factorizations, as far as they may be chosen.

Large ranks make a table take long, and most families are undercut there. A family is followed in steps of its ranks,
and no further where others would stay below it at no more cost even if its errors fell at twice the rate of late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lrsearch.factorize.output_aware import DenseOutputs, FoldedOutputs, OutputDecomposition, least_errors

Key: TypeAlias = tuple[int, int]
"""Scheme and number of subspaces."""
_Ints: TypeAlias = npt.NDArray[np.int64]
_BEST = 0, 1
_STEPS = 8
_SMALL = 256
"""Kernels times cells that are looked at in any case, for that takes no time."""
_RATE = 2


def error_tables(groups: Sequence[DenseOutputs], costs: Mapping[Key, _Ints]) -> dict[Key, Tensor]:
    """The output errors of one layer's families.

    Args:
        groups: of the layer.
        costs: of each family: (ranks, 2), parameters and multiply-adds of its ranks 1, 2, ....

    Returns:
        For each family the errors of the ranks 0, 1, ..., all of them for scheme 0 in one subspace.
    """
    tables = {}
    if _BEST in costs:
        tables[_BEST] = _sum(least_errors(group) for group in groups)[: len(costs[_BEST]) + 1]
    folded = {scheme: [FoldedOutputs(group, scheme) for group in groups] for scheme, _ in costs}
    left = {key: _Family(folded[key[0]], key[1], len(costs[key])) for key in costs if key != _BEST}
    while left:
        tables |= {key: family.more_errors() for key, family in left.items()}
        left = {key: family for key, family in left.items() if _may_pay(key, tables, costs)}
    return tables


class _Family:
    """Factorizations of one scheme and number of subspaces."""

    def __init__(self, groups: Sequence[FoldedOutputs], subspaces: int, ranks: int) -> None:
        self._groups = [(group, group.first_stage(subspaces)[:ranks]) for group in groups]
        self._made: Sequence[OutputDecomposition | None] = [None] * len(groups)
        self._ranks, self._step = 0, max(-(-ranks // _STEPS), _SMALL // (subspaces * len(groups[0].cells)))

    def more_errors(self) -> Tensor:
        """Those known so far and of one step more."""
        self._ranks += self._step
        known = zip(self._groups, self._made, strict=True)
        made = [group.fit(first[: self._ranks], before) for (group, first), before in known]
        self._made = made
        return _sum(each.errors for each in made)


def _may_pay(key: Key, tables: Mapping[Key, Tensor], costs: Mapping[Key, _Ints]) -> bool:
    """Whether a larger rank than those known might lose less than all that is known, at the same cost of any kind."""
    errors = tables[key].numpy()
    last = len(errors) - 1
    middle = last // 2
    ahead = np.arange(last, len(costs[key]))
    if not len(ahead) or not errors[last] > 0:
        return False
    rate = _RATE * np.log(errors[middle] / errors[last]) / (last - middle)
    expected = errors[last] * np.exp(-rate * (ahead - last + 1))
    lost = np.concatenate([table.numpy()[1:] for table in tables.values()])
    spent = np.concatenate([costs[each][: len(table) - 1] for each, table in tables.items()])
    return any((expected < _least(lost, spent[:, kind], costs[key][ahead, kind])).any() for kind in range(2))


def _least(lost: npt.NDArray[np.float64], spent: _Ints, affordable: _Ints) -> npt.NDArray[np.float64]:
    """The least that is lost at no more than each of these costs."""
    order = np.argsort(spent, kind="stable")
    least: npt.NDArray[np.float64] = np.minimum.accumulate(lost[order])
    return least[np.searchsorted(spent[order], affordable, side="right") - 1]


def _sum(errors: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(errors)).sum(0)
