"""ALDS Algorithm 1: ranks for given subspaces, then subspaces for given layer costs, in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lrsearch.allocate.candidates import Solver


def alternation(solver: Solver, groups: Sequence[int]) -> Iterator[tuple[float, list[int]]]:
    """Algorithm 1 from one start.

    Args:
        solver: of a problem whose caps can be kept.
        groups: the number of subspaces that each layer starts from. Where the caps are out of their reach, each
            layer starts from that of its candidate in a choice that keeps them instead.

    Yields:
        After each round the largest error, which falls from round to round, and the chosen candidates.
    """
    layers, groups = solver.layers, list(groups)
    chosen = _with_groups(solver, groups)
    if chosen is None:
        cheapest = solver.cheapest() or []
        groups = [int(layer.groups[index]) for layer, index in zip(layers, cheapest, strict=True)]
        chosen = _with_groups(solver, groups)
    smallest = np.inf
    while chosen is not None:
        largest = max((float(layer.errors[i]) for layer, i in zip(layers, chosen, strict=True)), default=0.0)
        if largest >= smallest:
            return
        smallest = largest
        yield largest, chosen
        for position, layer in enumerate(layers):
            best = solver.within(position, chosen[position])
            groups[position] = int(layer.groups[best]) or groups[position]
        chosen = _with_groups(solver, groups)


def best_alternation(solver: Solver, n_seeds: int, rng: np.random.Generator) -> list[int]:
    """The best of Algorithm 1 from random starts, each layer moved to its best candidate of the same cost."""
    smallest, best = np.inf, [0] * len(solver.layers)
    for _ in range(n_seeds):
        start = [int(rng.choice(np.unique(layer.groups))) for layer in solver.layers]
        for largest, chosen in alternation(solver, start):
            if largest < smallest:
                smallest, best = largest, chosen
    return [solver.within(position, index) for position, index in enumerate(best)]


def _with_groups(solver: Solver, groups: Sequence[int]) -> list[int] | None:
    return solver.minimise_largest([layer.with_groups(k) for layer, k in zip(solver.layers, groups, strict=True)])
