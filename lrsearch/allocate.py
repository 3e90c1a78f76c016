"""One allocator for every method: candidates per layer in, one choice per layer within a budget out.

It knows numbers only. "The front" of a layer below is the list of its candidates that no other undercuts in both
error and cost, from cheap to exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lrsearch.errors import BudgetUnreachableError

Rule = Literal["max", "alternating", "sum", "constant"]
_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """The ways to realise one layer, as arrays of one entry each.

    Attributes:
        errors: 0 for the dense layer, which is always among the candidates.
        costs: in the unit of the budget; the dense layer is the costliest.
        groups: number of subspaces, which ``alternating`` holds fixed while it chooses ranks; 0 for a candidate
            that goes with any, such as the dense layer.
    """

    errors: _Floats
    costs: _Ints
    groups: _Ints


@dataclass(frozen=True)
class _Front:
    indices: _Ints
    errors: _Floats  # strictly falling
    costs: _Ints  # strictly rising


def allocate(
    layers: Sequence[Candidates],
    cap: float,
    rule: Rule = "max",
    *,
    n_seeds: int = 15,
    rng: np.random.Generator | None = None,
) -> list[int]:
    """Choose one candidate for each layer so that their costs add up to ``cap`` at most.

    The choice is maximal: no single layer could move to the next candidate of its front within the cap. What a
    rule leaves of the cap is spent step by step along the fronts, among the steps that fit on the one that removes
    most error for its cost; by ``constant`` on the layer that keeps the smallest fraction.

    Args:
        layers: the candidates of each layer.
        cap: the largest sum of costs.
        rule: ``max`` minimises the largest error, exactly. ``alternating`` minimises it as ALDS Algorithm 1
            does, from ``n_seeds`` random starts. ``sum`` minimises the sum of errors, up to a gap of at most the
            largest error that one step along the lower convex hull of a layer's front removes. ``constant``
            keeps the same fraction of every layer's dense cost, as nearly as candidates allow.
        n_seeds: random starts of ``alternating``.
        rng: what ``alternating`` draws from; required by it alone.

    Returns:
        For each layer the index of its candidate.

    Raises:
        BudgetUnreachableError: even the cheapest candidates exceed the cap.
    """
    fronts = [_front(layer) for layer in layers]
    cheapest = int(sum(front.costs[0] for front in fronts))
    if cheapest > cap:
        raise BudgetUnreachableError(f"the cheapest choice costs {cheapest}, more than {cap}", cheapest)
    if rule == "max":
        positions = _minimise_largest(fronts, cap)
    elif rule == "alternating":
        if rng is None:
            raise ValueError("rule alternating needs a random generator")
        positions = _best_alternation(layers, fronts, cap, n_seeds, rng)
    elif rule == "sum":
        positions = _minimise_sum(fronts, cap)
    else:
        fronts = [_removed(front, layer) for front, layer in zip(fronts, layers, strict=True)]
        positions = _minimise_largest(fronts, cap)
    positions = _fill(fronts, positions, cap, worst_first=rule == "constant")
    return [int(front.indices[position]) for front, position in zip(fronts, positions, strict=True)]


def alternation(layers: Sequence[Candidates], cap: float, groups: Sequence[int]) -> Iterator[tuple[float, list[int]]]:
    """ALDS Algorithm 1 from one start: ranks for given subspaces, then subspaces for given layer costs, in turn.

    Args:
        layers: the candidates of each layer.
        cap: the largest sum of costs.
        groups: the number of subspaces that each layer starts from. Where the cap is out of their reach, each
            layer starts from that of its cheapest candidate instead.

    Yields:
        After each round the largest error, which falls from round to round, and the chosen candidates.
    """
    fronts = [_front(layer) for layer in layers]
    groups = list(groups)
    if sum(_with_groups(layer, k).costs[0] for layer, k in zip(layers, groups, strict=True)) > cap:
        groups = [int(layer.groups[front.indices[0]]) for layer, front in zip(layers, fronts, strict=True)]
    smallest = np.inf
    while True:
        restricted = [_with_groups(layer, k) for layer, k in zip(layers, groups, strict=True)]
        positions = _minimise_largest(restricted, cap)
        largest = max((float(front.errors[p]) for front, p in zip(restricted, positions, strict=True)), default=0.0)
        if largest >= smallest:
            return
        smallest = largest
        chosen = [int(front.indices[p]) for front, p in zip(restricted, positions, strict=True)]
        yield largest, chosen
        for i, (layer, front) in enumerate(zip(layers, fronts, strict=True)):
            best = int(front.indices[_within(front, float(layer.costs[chosen[i]]))])
            groups[i] = int(layer.groups[best]) or groups[i]


def _front(candidates: Candidates, keep: npt.NDArray[np.bool_] | None = None) -> _Front:
    indices = np.arange(len(candidates.errors)) if keep is None else np.flatnonzero(keep)
    order = indices[np.lexsort((candidates.errors[indices], candidates.costs[indices]))]
    errors = candidates.errors[order]
    undercuts = np.append(True, errors[1:] < np.minimum.accumulate(errors)[:-1])
    front = order[undercuts]
    return _Front(front, candidates.errors[front], candidates.costs[front])


def _with_groups(candidates: Candidates, groups: int) -> _Front:
    return _front(candidates, (candidates.groups == groups) | (candidates.groups == 0))


def _removed(front: _Front, candidates: Candidates) -> _Front:
    """The front with the fraction of the dense cost that a candidate removes in place of its error."""
    return _Front(front.indices, 1 - front.costs / max(1, int(candidates.costs.max())), front.costs)


def _reaching(front: _Front, error: float) -> int:
    """Position of the cheapest candidate whose error is at most ``error``."""
    return min(int(np.searchsorted(-front.errors, -error)), len(front.errors) - 1)


def _within(front: _Front, cost: float) -> int:
    """Position of the best candidate that costs at most ``cost``."""
    return int(np.searchsorted(front.costs, cost, side="right")) - 1


def _cost(fronts: Sequence[_Front], positions: Sequence[int]) -> int:
    return int(sum(front.costs[position] for front, position in zip(fronts, positions, strict=True)))


def _minimise_largest(fronts: Sequence[_Front], cap: float) -> list[int]:
    """For a common error each layer's cheapest candidate is a lookup, and its cost falls as the error grows.

    So the smallest affordable error among the finitely many is found by bisection.
    """
    if not fronts:
        return []
    levels = np.unique(np.concatenate([front.errors for front in fronts]))
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        positions = [_reaching(front, levels[middle]) for front in fronts]
        low, high = (low, middle) if _cost(fronts, positions) <= cap else (middle + 1, high)
    return [_reaching(front, levels[low]) for front in fronts]


def _best_alternation(
    layers: Sequence[Candidates], fronts: Sequence[_Front], cap: float, n_seeds: int, rng: np.random.Generator
) -> list[int]:
    smallest, best = np.inf, [0] * len(layers)
    for _ in range(n_seeds):
        start = [int(rng.choice(np.unique(layer.groups))) for layer in layers]
        for largest, chosen in alternation(layers, cap, start):
            if largest < smallest:
                smallest, best = largest, chosen
    return [_within(front, float(layer.costs[index])) for layer, front, index in zip(layers, fronts, best, strict=True)]


def _minimise_sum(fronts: Sequence[_Front], cap: float) -> list[int]:
    """Walk down the convex hulls of all fronts, steepest step first, as far as the cap goes.

    Until the first step that does not fit this is the optimum of the linear relaxation (the multiple-choice
    knapsack problem; Sinha & Zoltners 1979), and that step's error bounds the gap to the best choice.
    """
    hulls = [_lower_hull(front) for front in fronts]
    owners = np.repeat(np.arange(len(hulls)), [len(hull) - 1 for hull in hulls])
    steps = np.concatenate([hull[1:] for hull in hulls]) if hulls else np.empty(0, np.int64)
    added = [np.diff(front.costs[hull]) for front, hull in zip(fronts, hulls, strict=True)]
    removed = [-np.diff(front.errors[hull]) for front, hull in zip(fronts, hulls, strict=True)]
    if not len(steps):
        return [0] * len(fronts)
    costs, slopes = np.concatenate(added), np.concatenate(removed) / np.concatenate(added)
    order = np.lexsort((steps, owners, -slopes))
    spent = sum(int(front.costs[0]) for front in fronts) + np.cumsum(costs[order])
    positions = [0] * len(fronts)
    for step in order[: int(np.searchsorted(spent, cap, side="right"))]:
        positions[owners[step]] = int(steps[step])
    return positions


def _lower_hull(front: _Front) -> _Ints:
    """Positions of the front's candidates on the lower convex hull of error over cost."""
    hull: list[int] = []
    for position in range(len(front.costs)):
        while len(hull) > 1 and _slope(front, hull[-2], hull[-1]) >= _slope(front, hull[-1], position):
            hull.pop()
        hull.append(position)
    return np.array(hull, dtype=np.int64)


def _slope(front: _Front, start: int, end: int) -> float:
    return float((front.errors[end] - front.errors[start]) / (front.costs[end] - front.costs[start]))


def _fill(fronts: Sequence[_Front], positions: Sequence[int], cap: float, *, worst_first: bool) -> list[int]:
    """Take further steps along the fronts until none fits: those that remove most error for their cost first.

    ``worst_first``: those of the layer with the largest error first.
    """
    filled = list(positions)
    left = cap - _cost(fronts, filled)
    while True:
        priorities = {}
        for layer, (front, position) in enumerate(zip(fronts, filled, strict=True)):
            if position + 1 < len(front.costs) and front.costs[position + 1] - front.costs[position] <= left:
                gain = -_slope(front, position, position + 1)
                priorities[layer] = float(front.errors[position]) if worst_first else gain
        if not priorities:
            return filled
        layer = max(priorities, key=priorities.__getitem__)
        left -= int(fronts[layer].costs[filled[layer] + 1] - fronts[layer].costs[filled[layer]])
        filled[layer] += 1
