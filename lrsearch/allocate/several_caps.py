"""Several caps at once: a multiple-choice knapsack of several dimensions, left to an integer program (HiGHS)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrsearch.allocate.candidates import Bools, Candidates, Floats, Ints

_GAP = 1e-3
"""How near to the smallest sum of errors the integer program goes, as a fraction of it."""
_NODES = 10_000
"""Where its search ends at the latest, with the best choice found so far."""


class SeveralCaps:
    """A ``Solver``. Inside, candidates that others undercut in error and every cost are left out."""

    def __init__(self, layers: Sequence[Candidates], caps: Sequence[float]) -> None:
        self.layers = layers
        self._caps = np.floor(caps).astype(np.int64)
        self._scale = np.maximum(self._caps, 1)
        self._fronts = [_undercut_by_none(np.column_stack([layer.errors, layer.costs])) for layer in layers]

    def smallest(self) -> tuple[float, ...]:
        """The sum of each layer's smallest cost, column by column."""
        return tuple(sum((layer.costs.min(axis=0) for layer in self.layers), np.zeros_like(self._caps)).tolist())

    def cheapest(self) -> list[int] | None:
        """Of any error."""
        return self._affordable(self._fronts)

    def minimise_largest(self, keep: Sequence[Bools] | None = None) -> list[int] | None:
        """For a common error the choice is among the candidates that reach it, and these grow with the error.

        So the smallest affordable error among the finitely many is found by bisection, as with one cap.
        """
        fronts = self._fronts
        if keep is not None:
            fronts = [_kept(layer, mask) for layer, mask in zip(self.layers, keep, strict=True)]
        best = self._affordable(fronts)
        return None if best is None else self._bisect(fronts, [layer.errors for layer in self.layers], best)

    def minimise_sum(self) -> list[int]:
        """Up to a thousandth of the smallest sum."""
        if not self.layers:
            return []
        largest = max(float(layer.errors.max()) for layer in self.layers) or 1.0
        errors = [layer.errors[front] / largest for layer, front in zip(self.layers, self._fronts, strict=True)]
        chosen = self._program(self._fronts, errors, _GAP) or self.cheapest()
        assert chosen is not None  # noqa: S101 - a rule is asked only where the caps can be kept
        return chosen

    def within(self, layer: int, candidate: int) -> int:
        """By comparing with every candidate."""
        errors, costs = self.layers[layer].errors, self.layers[layer].costs
        front = self._fronts[layer]
        fitting = front[(costs[front] <= costs[candidate]).all(axis=1)]
        return int(fitting[errors[fitting].argmin()])

    def fill(self, choice: Sequence[int]) -> list[int]:
        """Costs of different units add up as fractions of their caps."""
        chosen = [self.within(layer, candidate) for layer, candidate in enumerate(choice)]
        return self._fill(chosen, [layer.errors for layer in self.layers], worst_first=False)

    def constant(self) -> list[int]:
        """The largest fraction that is removed of a cost takes the place of the error."""
        removed = [1 - (layer.costs / np.maximum(layer.costs.max(axis=0), 1)).min(axis=1) for layer in self.layers]
        start = self.cheapest()
        assert start is not None  # noqa: S101 - a rule is asked only where the caps can be kept
        return self._fill(self._bisect(self._fronts, removed, start), removed, worst_first=True)

    def _bisect(self, fronts: Sequence[Ints], errors: Sequence[Floats], best: list[int]) -> list[int]:
        pairs = list(zip(errors, fronts, strict=True))
        levels = np.unique(np.concatenate([values[front] for values, front in pairs])) if pairs else np.empty(0)
        low, high = 0, len(levels) - 1
        while low < high:
            middle = (low + high) // 2
            choice = self._affordable([front[values[front] <= levels[middle]] for values, front in pairs])
            if choice is None:
                low = middle + 1
            else:
                best, high = choice, middle
        return best

    def _affordable(self, options: Sequence[Ints]) -> list[int] | None:
        """A choice among each layer's options that keeps the caps, as cheap as is easily found; None without."""
        costs = [layer.costs[kept] for layer, kept in zip(self.layers, options, strict=True)]
        if any(len(each) == 0 for each in costs):
            return None
        if (sum((each.min(axis=0) for each in costs), np.zeros_like(self._caps)) > self._caps).any():
            return None
        cheapest = [(each / self._scale).sum(axis=1) for each in costs]
        chosen = [int(kept[each.argmin()]) for kept, each in zip(options, cheapest, strict=True)]
        if self._keeps_caps(chosen):
            return chosen
        fronts = [kept[_undercut_by_none(each)] for kept, each in zip(options, costs, strict=True)]
        scaled = [layer.costs[front] / self._scale for layer, front in zip(self.layers, fronts, strict=True)]
        return self._program(fronts, [each.sum(axis=1) for each in scaled], gap=1.0)

    def _keeps_caps(self, choice: Sequence[int]) -> bool:
        spent = sum((layer.costs[i] for layer, i in zip(self.layers, choice, strict=True)), np.zeros_like(self._caps))
        return bool((spent <= self._caps).all())

    def _program(self, options: Sequence[Ints], weights: Sequence[Floats], gap: float) -> list[int] | None:
        """One option for each layer with the smallest sum of weights that keeps the caps."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        sizes = [len(kept) for kept in options]
        owners = np.repeat(np.arange(len(sizes)), sizes)
        one_each = csr_array((np.ones(len(owners)), (owners, np.arange(len(owners)))))
        costs = np.concatenate([layer.costs[kept] for layer, kept in zip(self.layers, options, strict=True)])
        # Costs are whole numbers: half of one is room for rounding, which for large caps is relative.
        limits = (self._caps + 0.5 - 2e-6 * self._caps) / self._scale
        found = milp(
            np.concatenate(weights),
            integrality=np.ones(len(owners)),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint((costs / self._scale).T, -np.inf, limits)],
            options={"mip_rel_gap": gap, "node_limit": _NODES},
        )
        if found.x is None:
            return None
        parts = np.split(found.x, np.cumsum(sizes)[:-1])
        chosen = [int(kept[part.argmax()]) for kept, part in zip(options, parts, strict=True)]
        return chosen if self._keeps_caps(chosen) else None

    def _fill(self, choice: Sequence[int], errors: Sequence[Floats], *, worst_first: bool) -> list[int]:
        filled = list(choice)
        left = self._caps - sum(
            (layer.costs[i] for layer, i in zip(self.layers, filled, strict=True)), np.zeros_like(self._caps)
        )
        while True:
            steps = {}
            for layer, (front, values) in enumerate(zip(self._fronts, errors, strict=True)):
                now = filled[layer]
                added = self.layers[layer].costs[front] - self.layers[layer].costs[now]
                better = (values[front] < values[now]) & (added <= left).all(axis=1)
                if better.any():
                    price = np.maximum((added / self._scale).max(axis=1), 1e-12)
                    gains = np.where(better, (values[now] - values[front]) / price, -np.inf)
                    best = int(gains.argmax())
                    steps[layer] = (float(values[now]) if worst_first else float(gains[best]), int(front[best]))
            if not steps:
                return filled
            layer = max(steps, key=lambda each: steps[each][0])
            step = steps[layer][1]
            left = left - (self.layers[layer].costs[step] - self.layers[layer].costs[filled[layer]])
            filled[layer] = step


def _kept(candidates: Candidates, mask: Bools) -> Ints:
    indices: Ints = np.flatnonzero(mask)
    return indices[_undercut_by_none(np.column_stack([candidates.errors, candidates.costs])[indices])]


def _undercut_by_none(points: Floats | Ints) -> Ints:
    """Indices of the points that no other is at most equal to in every column; of equal points the first."""
    order = np.lexsort(points.T[::-1])
    left, front = order, []
    while len(left):
        first = left[0]
        front.append(first)
        left = left[(points[left] < points[first]).any(axis=1)]
    return np.array(front, dtype=np.int64)
