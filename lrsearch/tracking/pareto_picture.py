"""The front as a still picture, for papers, slides and chat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrsearch.tracking.axes import INK, PALE, dress
from lrsearch.tracking.panels import FrontView, Panel


def write_picture(path: Path, view: FrontView) -> None:
    """Write a picture in the format of the path's ending, panels side by side that share the vertical axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(max(9.2, 0.8 + 4.9 * len(view.panels)), 4.9), dpi=150, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(view.panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(all_axes, view.panels, strict=True):
        _draw(axes, panel, view.colours)
    all_axes[0].set_ylabel(view.panels[0].y.title, color=INK)
    figure.suptitle(f"{view.title}\n", x=0.012, ha="left", fontsize=14, fontweight="bold", color=INK)
    figure.text(0.012, 0.915, view.subtitle, fontsize=9, color=PALE, va="center")
    handles = {label: h for axes in all_axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(len(handles), 6),
        frameon=False,
    )
    figure.savefig(path)


def _draw(axes: Any, panel: Panel, colours: Mapping[str, str]) -> None:
    line = [point for point in panel.points if point.joined]
    axes.plot([p.x for p in line], [p.y for p in line], color=PALE, linewidth=1.3, zorder=2, label="front")
    for method, colour in colours.items():
        points = [point for point in panel.points if point.record.method == method]
        faint = [point for point in points if not point.record.pareto]
        front = [point for point in points if point.record.pareto]
        axes.scatter([p.x for p in faint], [p.y for p in faint], s=26, color=colour, alpha=0.3, linewidths=0)
        axes.scatter(
            [p.x for p in front], [p.y for p in front],
            s=58, color=colour, edgecolors="white", linewidths=0.9, zorder=3, label=method,
        )  # fmt: skip
        repeated = [(x, mean, std) for record, x, mean, std in panel.repeated() if record.method == method]
        if repeated:
            x, mean, std = zip(*repeated, strict=True)
            axes.errorbar(x, mean, std, fmt="_", color=colour, markersize=8, linewidth=1.6, zorder=3)
    if panel.x.dense is not None and panel.y.dense is not None:
        axes.scatter(
            [panel.x.dense], [panel.y.dense],
            marker="*", s=240, color=INK, edgecolors="white", linewidths=0.9, zorder=4,
            label="dense network",
        )  # fmt: skip
    axes.set_xlabel(panel.x.title, color=INK)
    axes.set_ylim(*panel.y_range())
    dress(axes)
