"""Non-domination ranks of a growing set of points: plain numbers in, plain numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Points = npt.NDArray[np.float64]


class Ranks:
    """Sorts points into layers: rank 0 is dominated by none, rank r by some of rank r - 1 and by none of rank r.

    A new point pushes those that it dominates one layer down, and they push others in turn, so that adding one is
    far cheaper than sorting all anew (Li et al., "Efficient nondomination level update method for steady-state
    evolutionary multiobjective optimization", IEEE Trans. Cybernetics 2017).
    """

    def __init__(self, objectives: int) -> None:
        """Start empty, for points of so many numbers each."""
        self._objectives = objectives
        self._layers: list[_Points] = []

    def __len__(self) -> int:
        return sum(map(len, self._layers))

    def add(self, point: Sequence[float]) -> int:
        """Take in a point, larger being better in every objective, and return its rank; equal points share one."""
        moving = np.asarray(point, dtype=float).reshape(1, self._objectives)
        rank = next((r for r, layer in enumerate(self._layers) if not dominates(layer, moving)[0]), len(self._layers))
        for depth in range(rank, len(self._layers)):
            layer = self._layers[depth]
            pushed = dominates(moving, layer)
            self._layers[depth] = np.concatenate([layer[~pushed], moving])
            moving = layer[pushed]
            if not len(moving):
                return rank
        self._layers.append(moving)
        return rank

    def above(self, rank: int) -> int:
        """How many points have a better rank."""
        return sum(map(len, self._layers[:rank]))


def dominates(points: _Points, others: _Points) -> npt.NDArray[np.bool_]:
    """Which of the others (n, m) some of the points (k, m) dominates: nowhere less and somewhere more; n booleans."""
    at_least = np.all(points[:, None] >= others[None], axis=2)
    better = np.any(points[:, None] > others[None], axis=2)
    return np.asarray(np.any(at_least & better, axis=0))
