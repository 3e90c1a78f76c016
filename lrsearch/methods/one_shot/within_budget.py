"""From a network and a budget to the compressed network: what methods share that choose from tables."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias

from torch import nn

from lrsearch.allocate import Candidates
from lrsearch.factorize import LayerShape, find_layers
from lrsearch.methods.base import Budget, Compressed, Progress, Task
from lrsearch.methods.one_shot.apply import Factorize, apply
from lrsearch.methods.one_shot.candidates import Family, LayerTable
from lrsearch.methods.one_shot.cap import Caps, make_caps

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
) -> Generator[Progress, None, Compressed]:
    """Choose the factorizations of all layers together, decompose the layers one by one, measure the result.

    Raises:
        BudgetUnreachableError: the budget is smaller than what the cheapest candidates would keep.
        LrsearchError: a layer's weight is not finite.
    """
    layers, dense = find_layers(model, task.example_input)
    caps = make_caps(model, layers, budget, task)
    tables = [LayerTable(name, shape, families(name, shape), caps) for name, shape in layers.items()]
    chosen = spread(caps, [each.candidates for each in tables])
    factorizations = {name: each.factorization(index) for name, each, index in zip(layers, tables, chosen, strict=True)}
    compressed = yield from apply(model, task, method, factorizations, dense, factorize=factorize)
    caps.verify(compressed.model, task)
    return compressed
