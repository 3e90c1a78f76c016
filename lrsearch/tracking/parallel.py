"""Parallel coordinates: each trial of a method as a line through its hyperparameters and what they led to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrsearch.record import TrialRecord

_LOG_RATIO = 30.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
_RESULTS: dict[str, str] = {"cr_p": "CR-P, %", "cr_f": "CR-F, %", "speedup": "speed-up, ×", "accuracy": "accuracy, %"}


@dataclass(frozen=True)
class Coordinate:
    """One axis: a title, labelled positions between 0 and 1, and where a value belongs."""

    title: str
    ticks: list[tuple[float, str]]
    place: Callable[[Any], float]


def coordinates(records: Sequence[TrialRecord]) -> tuple[list[Coordinate], dict[int, list[float]]]:
    """The axes of one method's complete trials, and each trial's positions on them.

    Hyperparameters that every trial shares are left out, and so are trials that lack a value.
    """
    rows = {record.number: dict(_values(record)) for record in records}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = {name: [row[name] for row in rows.values() if name in row] for name in names}
    shown = [name for name in names if name in _RESULTS.values() or len(set(map(str, columns[name]))) > 1]
    axes = [_coordinate(name, columns[name]) for name in shown]
    lines = {
        number: [round(axis.place(row[axis.title]), 4) for axis in axes]
        for number, row in rows.items()
        if all(axis.title in row for axis in axes)
    }
    return axes, lines


def _values(record: TrialRecord) -> Iterator[tuple[str, Any]]:
    yield from _leaves(record.hyperparameters)
    for name, title in _RESULTS.items():
        value = getattr(record, name)
        if value is not None and math.isfinite(value):
            yield title, value


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value


def _coordinate(title: str, values: Sequence[Any]) -> Coordinate:
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return _categories(title, values)
    low, high = float(min(values)), float(max(values))
    if low > 0 and high / low >= _LOG_RATIO:
        return _scale(title, low, high, math.log, math.exp)
    return _scale(title, low, high, float, float)


def _scale(
    title: str, low: float, high: float, forward: Callable[[float], float], backward: Callable[[float], float]
) -> Coordinate:
    start, length = forward(low), forward(high) - forward(low)

    def place(value: float) -> float:
        return (forward(value) - start) / length if length > 0 else 0.5

    middle = backward(start + length / 2)
    ends = [(0.0, f"{low:.3g}"), (0.5, f"{middle:.3g}"), (1.0, f"{high:.3g}")]
    return Coordinate(title, ends if length > 0 else [(0.5, f"{low:.3g}")], place)


def _categories(title: str, values: Sequence[Any]) -> Coordinate:
    labels = sorted({str(value) for value in values})
    places = {label: i / (len(labels) - 1) if len(labels) > 1 else 0.5 for i, label in enumerate(labels)}
    return Coordinate(title, [(at, label) for label, at in places.items()], lambda value: places[str(value)])
