"""The curves of all methods as a still picture, for papers and slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrsearch.record import DenseRecord, TrialRecord
from lrsearch.tracking.axes import INK, PALE, dress
from lrsearch.tracking.method_curves import MethodCurve, Reduction, Stage, method_curves

_MOST_LOST = 10.0
"""Percentage points; networks that lose more are past use and would flatten the rest."""
_REDUCTIONS: dict[Reduction, str] = {"cr_p": "Parameters removed (CR-P), %", "cr_f": "FLOPs removed (CR-F), %"}
_STAGES: dict[Stage, str] = {"compressed": "Compressed only", "retrained": "Retrained"}


def write_curves(
    path: Path, title: str, dense: DenseRecord, records: Sequence[TrialRecord], colours: Mapping[str, str]
) -> None:
    """Write a picture in the format of the path's ending, a row for parameters and one for FLOPs.

    In each row: accuracy lost over what is removed, compressed only and retrained, and the largest reduction at each
    accepted loss after retraining.

    Args:
        path: of the picture.
        title: the sweep's name.
        dense: the reference.
        records: the sweep's trials.
        colours: of each method.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 8.4), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(_REDUCTIONS), len(_STAGES) + 1)
    for row, (reduction, label) in zip(rows, _REDUCTIONS.items(), strict=True):
        for axes, (stage, heading) in zip(row, _STAGES.items(), strict=False):
            curves = method_curves(dense, records, reduction, stage)
            _over_removed(axes, curves, colours)
            _titled(axes, heading, label, "Accuracy lost, points")
        _over_lost(row[-1], method_curves(dense, records, reduction, "retrained"), colours)
        _titled(row[-1], "Largest reduction", "Accuracy lost at most (δ), points", label)
    figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold", color=INK)
    handles = {label: h for axes in rows.flat for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path)


def _over_removed(axes: Any, curves: Sequence[MethodCurve], colours: Mapping[str, str]) -> None:
    for curve in curves:
        colour = colours[curve.method]
        axes.scatter(*zip(*curve.places, strict=True), s=12, color=colour, alpha=0.35, linewidths=0)
        axes.plot(
            *zip(*curve.best, strict=True), color=colour, linewidth=1.8, marker="o", markersize=4, label=curve.method
        )
    losses = [loss for curve in curves for _, loss in curve.places]
    axes.axhline(0, color=PALE, linewidth=0.8)
    axes.set_ylim(min(_MOST_LOST, max(losses, default=1.0)) * 1.05 + 0.1, min(0.0, *losses, -0.2) * 1.1)


def _over_lost(axes: Any, curves: Sequence[MethodCurve], colours: Mapping[str, str]) -> None:
    for curve in curves:
        removed, lost = zip(*curve.best, strict=True)
        reached = [*lost, max(_MOST_LOST, lost[-1])]
        axes.plot(
            reached, [*removed, removed[-1]],
            drawstyle="steps-post", color=colours[curve.method], linewidth=1.8, label=curve.method,
        )  # fmt: skip
    losses = [loss for curve in curves for _, loss in curve.best]
    axes.set_xlim(min([0.0, *losses]), min(_MOST_LOST, max([0.5, *losses]) * 1.2))


def _titled(axes: Any, heading: str, x: str, y: str) -> None:
    axes.set_title(heading, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    dress(axes)
