"""One cap: fronts are staircases of error over cost, and every rule has a fast solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrsearch.allocate.candidates import Bools, Candidates, Floats, Ints


@dataclass(frozen=True)
class _Front:
    indices: Ints
    errors: Floats  # strictly falling
    costs: Ints  # strictly rising


class OneCap:
    """A ``Solver``. Inside, a choice is one position on the front for each layer."""

    def __init__(self, layers: Sequence[Candidates], cap: float) -> None:
        self.layers = layers
        self._cap = cap
        self._costs = [layer.costs.reshape(-1) for layer in layers]
        self._fronts = [_front(layer) for layer in layers]

    def smallest(self) -> tuple[float, ...]:
        """The sum of the cheapest costs."""
        return (_cost(self._fronts, [0] * len(self._fronts)),)

    def cheapest(self) -> list[int] | None:
        """Each layer's cheapest candidate."""
        return _indices(self._fronts, [0] * len(self._fronts)) if self.smallest()[0] <= self._cap else None

    def minimise_largest(self, keep: Sequence[Bools] | None = None) -> list[int] | None:
        """Exactly, by bisection."""
        fronts = self._fronts
        if keep is not None:
            fronts = [_front(layer, mask) for layer, mask in zip(self.layers, keep, strict=True)]
        if _cost(fronts, [0] * len(fronts)) > self._cap:
            return None
        return _indices(fronts, _minimise_largest(fronts, self._cap))

    def minimise_sum(self) -> list[int]:
        """Up to one step of the convex hulls."""
        return _indices(self._fronts, _minimise_sum(self._fronts, self._cap))

    def within(self, layer: int, candidate: int) -> int:
        """A lookup on the front."""
        front = self._fronts[layer]
        return int(front.indices[_within(front, int(self._costs[layer][candidate]))])

    def fill(self, choice: Sequence[int]) -> list[int]:
        """Steepest step first."""
        positions = [
            _within(front, int(costs[index]))
            for front, costs, index in zip(self._fronts, self._costs, choice, strict=True)
        ]
        return _indices(self._fronts, _fill(self._fronts, positions, self._cap, worst_first=False))

    def constant(self) -> list[int]:
        """The fraction that is removed takes the place of the error."""
        fronts = [_removed(front, costs) for front, costs in zip(self._fronts, self._costs, strict=True)]
        positions = _minimise_largest(fronts, self._cap)
        return _indices(fronts, _fill(fronts, positions, self._cap, worst_first=True))


def _front(candidates: Candidates, keep: Bools | None = None) -> _Front:
    costs = candidates.costs.reshape(-1)
    indices = np.arange(len(candidates.errors)) if keep is None else np.flatnonzero(keep)
    order = indices[np.lexsort((candidates.errors[indices], costs[indices]))]
    errors = candidates.errors[order]
    undercuts = np.append(True, errors[1:] < np.minimum.accumulate(errors)[:-1])
    front = order[undercuts]
    return _Front(front, candidates.errors[front], costs[front])


def _indices(fronts: Sequence[_Front], positions: Sequence[int]) -> list[int]:
    return [int(front.indices[position]) for front, position in zip(fronts, positions, strict=True)]


def _removed(front: _Front, costs: Ints) -> _Front:
    """The front with the fraction of the dense cost that a candidate removes in place of its error."""
    return _Front(front.indices, 1 - front.costs / max(1, int(costs.max())), front.costs)


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


def _lower_hull(front: _Front) -> Ints:
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
