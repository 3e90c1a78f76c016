"""What a training still gains from a rung on: a line through the trials that trained to their end."""

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
    """Accuracy gained after a rung as a linear function of where trials stood there, with the error it makes.

    Ridge regression on standardized coordinates; its error is that of predicting each trial from the others
    (Allen 1974, PRESS), so that it is large where standing at the rung tells little of the end.
    """

    def __init__(self) -> None:
        """Start without a trial."""
        self._seen: dict[int, tuple[Sequence[float], float]] = {}

    def learn(self, number: int, stand: Sequence[float], gained: float) -> None:
        """Take in a trial that trained to its end: where it stood, d numbers, and the accuracy gained since."""
        self._seen[number] = stand, gained

    def hoped(self, stand: Sequence[float]) -> float:
        """The gain from there on that is expected, and a standard error more; infinite while too little is known."""
        if len(self._seen) < _FEWEST:
            return math.inf
        latest = sorted(self._seen)[-_LATEST:]  # whatever the order in which they ended
        seen = [self._seen[number] for number in latest]
        stands, gains = np.array([stand for stand, _ in seen]), np.array([gained for _, gained in seen])
        centre, spread = stands.mean(0), np.maximum(stands.std(0), _SMALLEST_SPREAD)
        design, (here,) = _design((stands - centre) / spread), _design((np.array([stand]) - centre) / spread)
        penalty = np.diag([0.0, *[_RIDGE * len(gains)] * len(stand)])
        inverse = np.linalg.inv(design.T @ design + penalty)
        weights = inverse @ design.T @ gains
        leverages = np.einsum("ij,jk,ik->i", design, inverse, design)
        missed = (gains - design @ weights) / (1 - leverages)
        return float(here @ weights + math.sqrt(np.square(missed).mean() * (1 + here @ inverse @ here)))


def _design(stands: _Values) -> _Values:
    return np.concatenate([np.ones((len(stands), 1)), stands], axis=1)
