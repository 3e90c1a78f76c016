"""From a network and a budget to the compressed network: what methods share that choose from tables."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias

from torch import nn

from lrsearch.allocate import Candidates
from lrsearch.factorize import LayerShape, find_layers
from lrsearch.methods.base import Budget, Compressed, Progress, Task
from lrsearch.methods.one_shot.apply import Factorize, apply
from lrsearch.methods.one_shot.candidates import LayerTable
from lrsearch.methods.one_shot.cap import Cap, make_cap

MakeTable: TypeAlias = Callable[[str, LayerShape, Cap], LayerTable]
"""(name, shape, cap) -> the candidates of a layer."""
Spread: TypeAlias = Callable[[Cap, Sequence[Candidates]], list[int]]
"""(cap, candidates of each layer) -> the chosen one of each."""


def compress_within(
    model: nn.Module,
    task: Task,
    method: str,
    budget: Budget,
    table: MakeTable,
    spread: Spread,
    factorize: Factorize | None = None,
) -> Generator[Progress, None, Compressed]:
    """Choose the factorizations of all layers together, decompose the layers one by one, measure the result.

    Raises:
        BudgetUnreachableError: the budget is smaller than what the cheapest candidates would keep.
        LrsearchError: a layer's weight is not finite.
    """
    layers, dense = find_layers(model, task.example_input)
    cap = make_cap(model, layers, budget, task)
    tables = [table(name, shape, cap) for name, shape in layers.items()]
    chosen = spread(cap, [each.candidates for each in tables])
    factorizations = {name: each.factorization(index) for name, each, index in zip(layers, tables, chosen, strict=True)}
    compressed = yield from apply(model, task, method, factorizations, dense, factorize=factorize)
    cap.verify(compressed.model, task)
    return compressed
