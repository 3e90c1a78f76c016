"""How much a trial is expected to add to the front: the expected gain of hypervolume.

Source: Emmerich, Giannakoglou, Naujoks 2006, "Single- and multiobjective evolutionary optimization assisted by
Gaussian random field metamodels"; here the volume beyond the front is measured at evenly spread corners of boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import norm, qmc

from lrsearch.sweep.points import Tried
from lrsearch.sweep.surrogate import Surrogate, Values

Kernels: TypeAlias = dict[tuple[str, str], tuple[bytes, Any]]
"""Method and what was modelled -> the points that were seen, and the kernel found for them."""

_CORNERS = 2048
_MARGIN = 1.1
"""How far beyond the best of every objective a gain is looked for, as a multiple of it."""
_SMALLEST_UNIT = 1e-3
_FEWEST_FOR_LINE = 3
_RIDGE = (1e-3, 2e-3)
"""What holds the line's level and its slope for each halving near 0."""
_DOUBT = 0.25
"""Standard deviation of what a stopped training would still have gained, as a part of the accuracies between the bound
and the best."""
_APART = 0.04
"""How near a trial another hardly tells anything new, as a part of the ranges."""


class ExpectedGain:
    """What trials of every method are expected to add to the front of those that were tried.

    Objectives are modelled as what they exceed a line through those of all methods over the logarithm of size by, so
    that a method that was tried once can be judged at other sizes. Of a stopped training its last accuracy is taken,
    with doubt. Running trials count as what is expected of them.
    """

    def __init__(
        self,
        tried: Mapping[str, Tried],
        least: Sequence[float],
        dense: Sequence[float | None],
        kernels: Kernels | None = None,
    ) -> None:
        """Look at what was tried.

        Args:
            tried: method -> its trials; of one trial at least the gains are known.
            least: the gain in each objective from which on a trial is of any use.
            dense: the dense network's gain in each objective that training changes, None for the others.
            kernels: kept from one look to the next, so that only of methods with new trials kernels are sought anew.
        """
        self._kernels = {} if kernels is None else kernels
        self._tried, self._least = tried, np.array(least)
        self._trained = np.array([own is not None for own in dense])
        gains = np.array([gain for each in tried.values() for gain in each.gains])
        stopped = np.array([was for each in tried.values() for was in each.stopped])
        useful = gains[~stopped & (gains > self._least).all(1)]
        best = np.maximum((useful if len(useful) else gains).max(0), [-np.inf if own is None else own for own in dense])
        self._unit = np.maximum(best - self._least, _SMALLEST_UNIT)
        self._front = (useful - self._least) / self._unit
        corners = _MARGIN * qmc.Sobol(len(self._least), rng=0).random(_CORNERS)
        self._beyond = corners[~(self._front[:, None] >= corners).all(-1).any(0)]
        self._sizes = np.array([size for each in tried.values() for size in each.sizes])
        self._line = self._line_over_size()
        self._everywhere = np.concatenate([self._above_line(each) for each in tried.values()])

    def on_front(self, method: str) -> list[int]:
        """Which of a method's points no trial that trained to its end beats in every objective."""
        gains = self._scaled(self._tried[method])
        beaten = (self._front[:, None] > gains).all(-1).any(0)
        return [int(i) for i in np.flatnonzero(~beaten)]

    def of(self, method: str, points: Values) -> Values:
        """The expected gain of hypervolume of each point (n, d) of a method, (n,)."""
        each, dimensions = self._tried[method], points.shape[1]
        seen, running = _rows(each.points, dimensions), _rows(each.running, dimensions)
        certain = np.zeros(len(seen))
        size, _ = self._surrogate((method, "size"), seen, np.array(each.sizes), certain, self._sizes).predict(points)
        line = _design(size) @ self._line
        above, doubt = self._above_line(each), np.where(each.stopped, _DOUBT**2, certain)
        chances = np.ones((len(points), len(self._beyond)))
        for i, trained in enumerate(self._trained):
            variances, everywhere = doubt if trained else certain, self._everywhere[:, i]
            surrogate = self._surrogate((method, f"objective {i}"), seen, above[:, i], variances, everywhere)
            mean, deviation = surrogate.believing(running).predict(points)
            chances *= norm.cdf(((mean + line[:, i])[:, None] - self._beyond[:, i]) / deviation[:, None])
        gained: Values = chances.sum(1) / _CORNERS
        return gained * self._chance_to_end(method, points) * self._novelty(each, points)

    def _surrogate(self, of: tuple[str, str], seen: Values, *known: Values) -> Surrogate:
        """A surrogate whose kernel is sought only where other points were seen than the last time."""
        last, kernel = self._kernels.get(of, (None, None))
        content = seen.tobytes()
        values, variances, everywhere = known
        surrogate = Surrogate(seen, values, variances, everywhere, kernel if last == content else None)
        self._kernels[of] = content, surrogate.kernel
        return surrogate

    def _scaled(self, each: Tried) -> Values:
        """Gains in units of what lies between the least of use and the best; far below the least all are alike."""
        scaled = (_rows(each.gains, len(self._least)) - self._least) / self._unit
        clipped: Values = np.where(self._trained, np.maximum(scaled, -1.0), scaled)
        return clipped

    def _above_line(self, each: Tried) -> Values:
        return self._scaled(each) - _design(np.array(each.sizes)) @ self._line

    def _line_over_size(self) -> Values:
        """Level and slope of each objective, (2, m); both 0 where little is known."""
        if len(self._sizes) < _FEWEST_FOR_LINE:
            return np.zeros((2, len(self._least)))
        gains = np.concatenate([self._scaled(each) for each in self._tried.values()])
        design = _design(self._sizes)
        line: Values = np.linalg.solve(design.T @ design + np.diag(_RIDGE), design.T @ gains)
        return line

    def _chance_to_end(self, method: str, points: Values) -> Values:
        """The chance that a process through the fates of the method's trials, 1 and 0, is above a half."""
        each = self._tried[method]
        if not each.lost:
            return np.ones(len(points))
        fates = np.repeat([1.0, 0.0], [len(each.ended), len(each.lost)])
        seen = _rows([*each.ended, *each.lost], points.shape[1])
        surrogate = self._surrogate((method, "fate"), seen, fates, np.zeros(len(seen)), np.array([0.0, 1.0]))
        mean, deviation = surrogate.predict(points)
        chance: Values = norm.cdf((mean - 0.5) / deviation)
        return chance

    def _novelty(self, each: Tried, points: Values) -> Values:
        """From 0 where a trial of the method has been to 1 far from all: what training repeats it tells of itself."""
        others = _rows([*each.points, *each.lost, *each.running], points.shape[1])
        away: Values = np.abs(points[:, None] - others).max(-1, initial=0.0)
        novelty: Values = 1 - np.exp(-0.5 * np.square(away.min(1, initial=1.0) / _APART))
        return novelty


def _design(sizes: Values) -> Values:
    return np.stack([np.ones(len(sizes)), sizes], 1)


def _rows(values: Sequence[Sequence[float]], columns: int) -> Values:
    return np.array(values, dtype=float).reshape(len(values), columns)
