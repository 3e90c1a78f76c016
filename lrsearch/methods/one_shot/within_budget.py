"""From a network and a budget to the compressed network: what methods share that choose from tables."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import nn

from lrsearch.allocate import Candidates
from lrsearch.factorize import LayerShape, find_layers
from lrsearch.methods.base import Budget, Compressed, Progress, Task
from lrsearch.methods.one_shot.apply import Factorize, apply
from lrsearch.methods.one_shot.candidates import Family, LayerTable
from lrsearch.methods.one_shot.cap import Caps, make_caps
from lrsearch.recipe import Factorization

_CORRECTIONS = 3
MakeFamilies: TypeAlias = Callable[[str, LayerShape], Sequence[Family]]
"""(name, shape) -> the factorizations of a layer that make it smaller."""
Spread: TypeAlias = Callable[[Caps, Sequence[Candidates]], list[int]]
"""(caps, candidates of each layer) -> the chosen one of each."""


def compress_within(
    model: nn.Module,
    task: Task,
    method: str,
    budget: Budget,
    families: MakeFamilies,
    spread: Spread,
    factorize: Factorize | None = None,
    left_out: Mapping[str, str] | None = None,
) -> Generator[Progress, None, Compressed]:
    """Choose the factorizations of all layers together, decompose the layers one by one, measure the result.

    A budget in latency is kept by measurement: while the network takes longer than its layers' times promised, the
    choice is made again with less.

    Raises:
        BudgetUnreachableError: the budget is smaller than what the cheapest candidates would keep.
        LrsearchError: a layer's weight is not finite.
    """
    layers, dense = find_layers(model, task.example_input)
    dense |= left_out or {}
    layers = {name: shape for name, shape in layers.items() if name not in dense}
    caps = make_caps(model, layers, budget, task)
    tables = {name: LayerTable(name, shape, families(name, shape), caps) for name, shape in layers.items()}
    chosen = _chosen(tables, caps, spread)
    for _ in range(_CORRECTIONS):
        tighter = caps.corrected(chosen)
        if tighter is None:
            break
        caps, chosen = tighter, _chosen(tables, tighter, spread)
    compressed = yield from apply(model, task, method, chosen, dense, factorize=factorize)
    caps.verify(compressed.model, task)
    return replace(
        compressed, metrics={"predicted_speedup": caps.timed.predicted_speedup(chosen)} if caps.timed else {}
    )


def _chosen(tables: Mapping[str, LayerTable], caps: Caps, spread: Spread) -> dict[str, Factorization]:
    indices = spread(caps, [table.candidates for table in tables.values()])
    return {name: table.factorization(index) for (name, table), index in zip(tables.items(), indices, strict=True)}
