"""The Pareto front of a sweep and the volume it dominates: plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lrsearch.ranks import dominates
from lrsearch.record import DIRECTIONS, DenseRecord, TrialRecord

_Points = npt.NDArray[np.float64]


def pareto_mask(points: Sequence[Sequence[float]], directions: Sequence[str]) -> list[bool]:
    """Which points no other point dominates.

    A point dominates another when it is at least as good in every objective and better in one; equal points
    do not dominate each other, so all copies of a non-dominated point are kept.

    Args:
        points: n points of m finite numbers each.
        directions: ``"max"`` or ``"min"`` for each of the m objectives.

    Returns:
        n booleans, in the order of the points.
    """
    signs = [1.0 if direction == "max" else -1.0 for direction in directions]
    gains = np.asarray(points, dtype=float).reshape(len(points), len(signs)) * signs
    return [bool(kept) for kept in _maxima(gains)]


def hypervolume(points: Iterable[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume between a reference point and the points that dominate it; every objective is maximised.

    Exact for any number of objectives: the volume is cut into slabs along the last objective, and each slab's
    base is the hypervolume of one objective less (Zitzler, "Hypervolume metric calculation", 2001; HSO in
    While et al., "A faster algorithm for calculating hypervolume", 2006).

    Args:
        points: any number of points of m numbers each; one counts
            where it exceeds the reference in every objective.
        reference: m numbers.

    Returns:
        The volume, in the product of the objectives' units.
    """
    origin = np.asarray(reference, dtype=float)
    gains = np.asarray(list(points), dtype=float).reshape(-1, len(origin)) - origin
    return _volume(gains[(gains > 0).all(axis=1)])


def gain(record: TrialRecord, dense: DenseRecord, objectives: Iterable[str]) -> list[float]:
    """A trial's objectives as dimensionless gains, larger is better, for the hypervolume with reference 0.

    Accuracies and reductions are fractions of 1, parameters and FLOPs the fraction that was saved, throughput
    and speed-up the ratio to the dense network, seconds the ratio of one minute to one minute more than the
    trial's. A metric that the record does not know gains nothing.
    """
    values = ((objective, _finite(getattr(record, objective))) for objective in objectives)
    return [0.0 if value is None else max(0.0, gain_of(name, value, dense)) for name, value in values]


def gain_of(metric: str, value: float, dense: DenseRecord) -> float:
    """The gain of one metric's value as ``gain`` counts it, negative where it falls behind."""
    return _GAINS[metric](value, dense)


def least_gain(objective: str, constraints: Mapping[str, float], dense: DenseRecord) -> float:
    """The gain of an objective that the constraints leave room for: 0, or what its bound asks for."""
    bounds, lowest = dict(constraints), lowest_accuracy(constraints, dense)
    if lowest > -math.inf:  # a bound of accuracy is one of its drop too
        bounds |= {"accuracy": lowest, "accuracy_drop": dense.accuracy - lowest}
    return max(0.0, gain_of(objective, bounds[objective], dense)) if objective in bounds else 0.0


def lowest_accuracy(constraints: Mapping[str, float], dense: DenseRecord) -> float:
    """The accuracy that the constraints ask for, in percent; minus infinity where they ask for none."""
    return max(dense.accuracy - constraints.get("accuracy_drop", math.inf), constraints.get("accuracy", -math.inf))


def is_feasible(record: TrialRecord, constraints: Mapping[str, float]) -> bool:
    """Whether a record keeps every bound, and knows every bounded metric.

    A bound is the largest allowed value of a metric to minimise and the smallest of a metric to maximise.
    """
    return all(_keeps(_finite(getattr(record, name)), name, bound) for name, bound in constraints.items())


def broken_bound(metrics: Mapping[str, float], constraints: Mapping[str, float]) -> str | None:
    """The first bound that metrics known so far break, as a sentence; unknown metrics break none."""
    for name, bound in constraints.items():
        value = metrics.get(name)
        if value is not None and not _keeps(_finite(value), name, bound):
            return (
                f"{name} is {value:.6g}, {'above' if DIRECTIONS[name] == 'min' else 'below'} its bound of {bound:.6g}"
            )
    return None


def mark_front(records: Sequence[TrialRecord], objectives: Mapping[str, str], constraints: Mapping[str, float]) -> None:
    """Set ``pareto`` of each record: non-dominated among the complete, feasible trials.

    A trial that lacks an objective, or has one that is not finite, is never on the front.

    Args:
        records: all the trials of a sweep, changed in place.
        objectives: metric name -> ``"max"`` or ``"min"``.
        constraints: metric name -> bound, see ``is_feasible``.
    """
    points = {id(record): point for record in records if (point := _point(record, objectives, constraints))}
    front = dict(zip(points, pareto_mask(list(points.values()), ["max"] * len(objectives)), strict=True))
    for record in records:
        record.pareto = front.get(id(record), False)


def knee(front: Sequence[TrialRecord], objectives: Mapping[str, str]) -> TrialRecord:
    """The member of a front that comes nearest to the best of everything.

    The distance is Euclidean, in units of what the front's median lacks of its best in each objective, so that a few
    useless extremes do not decide what is near.

    Args:
        front: one record at least, every objective known.
        objectives: metric name -> ``"max"`` or ``"min"``.
    """
    values = np.array([[getattr(record, name) for name in objectives] for record in front], dtype=float)
    best = np.where([way == "max" for way in objectives.values()], values.max(axis=0), values.min(axis=0))
    unit = np.abs(np.median(values, axis=0) - best)
    shortfall = np.abs(values - best) / np.where(unit > 0, unit, 1.0)
    return front[int(np.square(shortfall).sum(axis=1).argmin())]


def most_compressed(records: Iterable[TrialRecord], drop: float) -> TrialRecord | None:
    """The smallest network whose accuracy is at most ``drop`` percentage points below the dense one's.

    The entries of the delta-tables of the ALDS paper (NeurIPS 2021, table 1) are such networks. Of equally small
    ones it is the most accurate.
    """
    near = [r for r in records if r.state == "complete" and is_feasible(r, {"accuracy_drop": drop, "cr_p": -math.inf})]
    return max(near, key=lambda r: (r.cr_p or 0.0, r.accuracy or 0.0), default=None)


class Front:
    """The front of a sweep while its trials come in, one at a time.

    Attributes:
        members: the records on the front; ``pareto`` is set on them, and cleared when they leave.
        hypervolume: what they dominate, in dimensionless gains over the dense network.
    """

    def __init__(self, objectives: Mapping[str, str], constraints: Mapping[str, float], dense: DenseRecord) -> None:
        """Start empty; the arguments are those of ``mark_front`` and ``gain``."""
        self.members: list[TrialRecord] = []
        self.hypervolume = 0.0
        self._objectives, self._constraints, self._dense = objectives, constraints, dense
        self._points = np.empty((0, len(objectives)))
        self._gains = np.empty((0, len(objectives)))

    def add(self, record: TrialRecord) -> list[TrialRecord]:
        """Take in a trial that ended; the cost does not depend on how many ended before.

        Returns:
            The records that left the front for it.
        """
        record.pareto = False
        coordinates = _point(record, self._objectives, self._constraints)
        if coordinates is None:
            return []
        point = np.array([coordinates])
        if dominates(self._points, point)[0]:
            return []
        box = np.array([gain(record, self._dense, self._objectives)])
        origin = [0.0] * len(self._objectives)
        self.hypervolume += hypervolume(box, origin) - hypervolume(np.minimum(self._gains, box), origin)
        leaving = dominates(point, self._points)
        left = [member for member, leaves in zip(self.members, leaving, strict=True) if leaves]
        for member in left:
            member.pareto = False
        record.pareto = True
        self.members = [member for member in self.members if member.pareto] + [record]
        self._points = np.concatenate([self._points[~leaving], point])
        self._gains = np.concatenate([self._gains[~leaving], box])
        return left


def _point(record: TrialRecord, objectives: Mapping[str, str], constraints: Mapping[str, float]) -> list[float] | None:
    """A record's objectives, larger being better, or None where it cannot be on a front."""
    if record.state != "complete" or not is_feasible(record, constraints):
        return None
    values = [_finite(getattr(record, name)) for name in objectives]
    signs = [1.0 if direction == "max" else -1.0 for direction in objectives.values()]
    known = [sign * value for sign, value in zip(signs, values, strict=True) if value is not None]
    return known if len(known) == len(values) else None


_GAINS: dict[str, Callable[[float, DenseRecord], float]] = {
    "accuracy": lambda value, dense: value / 100,
    "accuracy_drop": lambda value, dense: (dense.accuracy - value) / 100,
    "params": lambda value, dense: 1 - value / dense.params,
    "flops": lambda value, dense: 1 - value / dense.flops,
    "cr_p": lambda value, dense: value / 100,
    "cr_f": lambda value, dense: value / 100,
    "throughput": lambda value, dense: value / dense.throughput,
    "speedup": lambda value, dense: value,
    "seconds": lambda value, dense: 60 / (60 + value),
}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _keeps(value: float | None, name: str, bound: float) -> bool:
    if value is None:
        return False
    return value <= bound if DIRECTIONS[name] == "min" else value >= bound


def _maxima(points: _Points) -> npt.NDArray[np.bool_]:
    """Which rows no other row dominates, larger being better.

    In descending lexicographic order a row can be dominated only by one before it, and then also by a maximal
    one, so that each row is compared with the maxima found so far.
    """
    mask = np.zeros(len(points), dtype=bool)
    maxima = np.empty_like(points)
    found = 0
    for index in np.lexsort(points.T[::-1])[::-1]:
        earlier = maxima[:found]
        at_least = (earlier >= points[index]).all(axis=1)
        if not (at_least & (earlier > points[index]).any(axis=1)).any():
            mask[index] = True
            maxima[found] = points[index]
            found += 1
    return mask


def _volume(gains: _Points) -> float:
    """The volume of the union of the boxes [0, row], for rows of positive numbers."""
    if not len(gains):
        return 0.0
    if gains.shape[1] == 1:
        return float(gains.max())
    if gains.shape[1] == 2:
        return _area(gains)
    gains = gains[_maxima(gains)]
    gains = gains[np.argsort(-gains[:, -1])]
    heights = gains[:, -1]
    thickness = heights - np.append(heights[1:], 0.0)
    slabs = np.flatnonzero(thickness)
    return sum((float(thickness[i]) * _volume(gains[: i + 1, :-1]) for i in slabs), 0.0)


def _area(gains: _Points) -> float:
    """``_volume`` of two objectives: below the staircase of the highest row that reaches each width."""
    gains = gains[np.argsort(-gains[:, 0])]
    widths = gains[:, 0] - np.append(gains[1:, 0], 0.0)
    return float(widths @ np.maximum.accumulate(gains[:, 1]))
