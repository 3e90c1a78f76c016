"""How a rank search narrowed: for each of its stages, how probable every candidate rank of every layer ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_INK, _PALE, _COLOUR = "#222222", "#8a8f98", "#0072B2"


def write_rank_search(path: Path, history: Mapping[str, Any]) -> None:
    """Write a PNG with one panel for each stage: a row of dots for each layer, their areas the probabilities.

    Args:
        path: where to.
        history: ``alpha``: for each stage, layer -> rank -> probability; ``ranks``: layer -> the rank that each stage
            chose, which is ringed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stages = history["alpha"]
    names = list(stages[0])
    size = max(6.0, 1.5 + 4.5 * len(stages)), 1.4 + 0.26 * len(names)
    figure = Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    for number, (axes, stage) in enumerate(zip(panels, stages, strict=True)):
        dots = [(int(rank), row, p) for row, name in enumerate(names) for rank, p in stage[name].items()]
        ranks, rows, probabilities = zip(*dots, strict=True)
        axes.scatter(ranks, rows, s=[90 * p for p in probabilities], color=_COLOUR, linewidths=0)
        chosen = [history["ranks"][name][number] for name in names]
        axes.scatter(chosen, range(len(names)), s=110, facecolors="none", edgecolors=_INK, linewidths=0.8)
        axes.set_title(f"stage {number + 1}", color=_INK, fontsize=10)
        axes.set_xlabel("candidate rank", color=_INK)
        axes.grid(axis="y", color=_PALE, alpha=0.25, linewidth=0.6)
    panels[0].set_yticks(range(len(names)), names, fontsize=7)
    panels[0].invert_yaxis()
    figure.savefig(path, format="png")
