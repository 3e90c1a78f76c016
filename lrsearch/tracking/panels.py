"""What a picture of the front shows: accuracy against each other objective, for all measured trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrsearch.front import knee, most_compressed, pareto_mask
from lrsearch.observer import SweepInfo
from lrsearch.record import DIRECTIONS, DenseRecord, TrialRecord

# Okabe and Ito's palette, told apart by colour-blind readers too; then two that are merely different, and of Tol's
# muted palette what is left.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7B5EA7", "#6B6B6B",
            "#882255", "#117733", "#DDCC77", "#332288", "#44AA99", "#CC6677", "#999933", "#AA4499")  # fmt: skip
_SAME = {"cr_f": "flops", "speedup": "throughput", "cr_p": "params"}
"""Metrics that say the same as another."""
_DROPS = (0.5, 1.0, 2.0)
"""Losses of accuracy, in percentage points, that readers ask for."""


@dataclass(frozen=True)
class Axis:
    """A metric as an axis: relative to the dense network where that says more than the metric itself."""

    metric: str
    title: str
    direction: str
    value: Callable[[TrialRecord], float | None]
    dense: float | None


@dataclass(frozen=True)
class Point:
    """A trial in one panel; ``joined`` to its neighbours when it is on the front of the panel's two axes."""

    record: TrialRecord
    x: float
    y: float
    joined: bool = False


@dataclass(frozen=True)
class Panel:
    """One picture: two axes, the trials that know both, in ascending x."""

    x: Axis
    y: Axis
    points: list[Point]

    def y_range(self) -> tuple[float, float]:
        """What to show of the y axis: front and dense network, not flattened by one bad trial."""
        front = [point.y for point in self.points if point.record.pareto]
        bars = [mean + sign * std for _, _, mean, std in self.repeated() for sign in (-1, 1)]
        values = (front or [point.y for point in self.points]) + bars
        if self.y.dense is not None:
            values = [*values, self.y.dense]
        margin = max(0.08 * (max(values) - min(values)), 0.002 * max(map(abs, values)), 1e-6)
        return min(values) - 2 * margin, max(values) + margin

    def repeated(self) -> list[tuple[TrialRecord, float, float, float]]:
        """Trials that were repeated with other seeds: record, x, mean and standard deviation of y."""
        return [
            (point.record, point.x, point.record.extra["accuracy_mean"], point.record.extra["accuracy_std"])
            for point in self.points
            if self.y.metric == "accuracy" and "accuracy_mean" in point.record.extra
        ]


@dataclass(frozen=True)
class FrontView:
    """All that a picture of a front needs.

    Attributes:
        title: the sweep's name.
        subtitle: one line with the sweep's and the dense network's figures.
        panels: at least one.
        colours: method -> colour, in the order of the space file.
        dense: the reference.
        front: the front's trials, the most accurate first.
        answers: what a reader wants to know first -> the trial that it is.
    """

    title: str
    subtitle: str
    panels: list[Panel]
    colours: dict[str, str]
    dense: DenseRecord
    front: list[TrialRecord]
    answers: dict[str, TrialRecord]


def view_front(info: SweepInfo, dense: DenseRecord, records: Sequence[TrialRecord]) -> FrontView:
    """Arrange every finished trial of a sweep, ``pareto`` set, for its pictures."""
    front = sorted((r for r in records if r.pareto), key=lambda r: -(r.accuracy or 0.0))
    subtitle = (
        f"{len(records)} of {info.trials} trials finished · {len(front)} on the front · "
        f"dense network: {dense.accuracy:.2f} % accuracy, {dense.params:,} parameters, "
        f"{dense.flops:,} FLOPs, {dense.throughput:,.0f} images/s"
    )
    panels, colours = _panels(info, dense, records), method_colours(info.space.get("methods") or {}, records)
    return FrontView(info.name, subtitle, panels, colours, dense, front, answers(info.objectives, records))


def answers(objectives: Mapping[str, str], records: Sequence[TrialRecord]) -> dict[str, TrialRecord]:
    """The front's knee, and the smallest networks at a few losses of accuracy."""
    front = [record for record in records if record.pareto]
    found = {"knee of the front": knee(front, objectives)} if front and objectives else {}
    for drop in _DROPS:
        if (smallest := most_compressed(records, drop)) is not None:
            found[f"smallest within {drop:g} points"] = smallest
    return found


def _panels(info: SweepInfo, dense: DenseRecord, records: Sequence[TrialRecord]) -> list[Panel]:
    """Accuracy (or else the first objective) against each other objective, and always against size and speed."""
    names = list(info.objectives)
    first = "accuracy" if "accuracy" in names or not names else names[0]
    said = {_SAME.get(name, name) for name in names}
    wanted = [*names, *(name for name in ("flops", "throughput", "params") if name not in said)]
    axes = {(axis := _axis(name, dense)).title: axis for name in wanted if name != first}
    return [_panel(other, _axis(first, dense), records) for other in axes.values()]


def method_colours(methods: Iterable[str], records: Sequence[TrialRecord]) -> dict[str, str]:
    """Each method's colour, in the order of the space file, the same in every picture."""
    ordered = dict.fromkeys([*methods, *sorted({r.method for r in records})])
    return {method: _COLOURS[i % len(_COLOURS)] for i, method in enumerate(ordered)}


def hyperparameter_text(values: Mapping[str, Any], prefix: str = "") -> str:
    """Hyperparameters on one line, such as ``budget.params 0.35, recalibrate true``."""
    parts = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            parts.append(hyperparameter_text(value, f"{prefix}{name}."))
        elif value is not None:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            parts.append(f"{prefix}{name} {text.lower() if isinstance(value, bool) else text}")
    return ", ".join(filter(None, parts))


def _axis(metric: str, dense: DenseRecord) -> Axis:
    direction = DIRECTIONS[metric]
    if metric in ("params", "flops"):
        title = f"{'FLOPs' if metric == 'flops' else 'Parameters'}, % of dense"
        return Axis(metric, title, direction, lambda r: _ratio(getattr(r, metric), getattr(dense, metric)), 100.0)
    if metric in ("throughput", "speedup"):
        return Axis(metric, "Throughput, × dense", direction, lambda r: r.speedup, 1.0)
    title, at_dense = {
        "accuracy": ("Accuracy (validation), %", dense.accuracy),
        "accuracy_drop": ("Accuracy lost, points", 0.0),
        "cr_p": ("Parameters removed (CR-P), %", 0.0),
        "cr_f": ("FLOPs removed (CR-F), %", 0.0),
        "seconds": ("Seconds per trial", None),
    }[metric]
    return Axis(metric, title, direction, lambda r: getattr(r, metric), at_dense)


def _ratio(value: float | None, whole: float) -> float | None:
    return None if value is None or not whole else 100 * value / whole


def _panel(x: Axis, y: Axis, records: Sequence[TrialRecord]) -> Panel:
    known = [
        Point(record, at_x, at_y)
        for record in records
        if record.state == "complete"
        and (at_x := x.value(record)) is not None
        and (at_y := y.value(record)) is not None
        and math.isfinite(at_x + at_y)
    ]
    known.sort(key=lambda point: (point.x, point.y))
    front = [point for point in known if point.record.pareto]
    mask = pareto_mask([(point.x, point.y) for point in front], [x.direction, y.direction])
    joined = {point.record.number for point, kept in zip(front, mask, strict=True) if kept}
    return Panel(x, y, [Point(p.record, p.x, p.y, p.record.number in joined) for p in known])
