"""How accurate a training may end, by where it stands at a rung: learnt from trials that trained to their end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Values = npt.NDArray[np.float64]
_FEWEST = 5
"""Trained trials from which on a line is drawn through them."""
_LATEST = 200
"""Trials that a line is drawn through at most, so that a verdict takes as long in the end as early."""
_RIDGE = 0.01
"""What holds its slopes near 0, for each trial, where a coordinate's standard deviation is 1."""
_SMALLEST_SPREAD = 1e-9


class Outlook:
    """The accuracy that a training may end with, told by where it stands at a rung.

    What is still gained is a linear function of where trials stood, with the error that it makes: ridge regression on
    standardized coordinates, and the error of predicting each trial from the others (Allen 1974, PRESS), which is large
    where standing at the rung tells little of the end. Where trials stand are d numbers, accuracy the first.
    """

    def __init__(self) -> None:
        """Start without a trial."""
        self._seen: dict[int, tuple[Sequence[float], float]] = {}

    def learn(self, number: int, stand: Sequence[float], accuracy: float) -> None:
        """Take in a trial that trained to its end: where it stood at the rung, and its accuracy in the end."""
        self._seen[number] = stand, accuracy

    def hoped(self, stand: Sequence[float]) -> float:
        """The accuracy that is expected in the end, and a standard error more; infinite while too little is known."""
        if len(self._seen) < _FEWEST:
            return math.inf
        stands, ends = self._latest()
        gains = ends - stands[:, 0]
        centre, spread = stands.mean(0), np.maximum(stands.std(0), _SMALLEST_SPREAD)
        design, (here,) = _design((stands - centre) / spread), _design((np.array([stand]) - centre) / spread)
        penalty = np.diag([0.0, *[_RIDGE * len(gains)] * len(stand)])
        inverse = np.linalg.inv(design.T @ design + penalty)
        weights = inverse @ design.T @ gains
        leverages = np.einsum("ij,jk,ik->i", design, inverse, design)
        missed = (gains - design @ weights) / (1 - leverages)
        return float(stand[0] + here @ weights + math.sqrt(np.square(missed).mean() * (1 + here @ inverse @ here)))

    def may_reach(self, bound: float, stand: Sequence[float]) -> bool:
        """Whether a training may end with an accuracy of at least ``bound``.

        A line through few trials is not enough to say no, for accuracies that collapse are far from any: one that stood
        as accurate must also have fallen short, and none that stood as inaccurate have reached it.
        """
        if self.hoped(stand) >= bound:
            return True
        stands, ends = self._latest()
        failed = (stands[:, 0] >= stand[0]) & (ends < bound)
        made_it = (stands[:, 0] <= stand[0]) & (ends >= bound)
        return bool(not failed.any() or made_it.any())

    def _latest(self) -> tuple[_Values, _Values]:
        """Where trials stood, (n, d), and how accurate they were in the end, (n,)."""
        latest = [self._seen[number] for number in sorted(self._seen)[-_LATEST:]]  # in whatever order they ended
        return np.array([stand for stand, _ in latest]), np.array([accuracy for _, accuracy in latest])


def _design(stands: _Values) -> _Values:
    return np.concatenate([np.ones((len(stands), 1)), stands], axis=1)
