"""How the ranks of layers evolved over a compression, as a still picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_INK, _PALE = "#222222", "#8a8f98"
_MOST_NAMED = 12


def write_ranks(path: Path, history: Mapping[str, Any]) -> None:
    """Write a PNG of rank over epochs, one line per layer.

    Where the history knows tau, the null curve 1 / tau^2 is beside them: repeated truncation of relative size tau
    alone, of a matrix that learns nothing, leaves no more rank than that. What lies below it was learnt.

    Args:
        path: of the picture.
        history: ``ranks``: layer -> rank after each epoch; ``tau``: after each of the first epochs, or absent.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ranks: Mapping[str, list[int]] = history["ranks"]
    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, course in ranks.items():
        label = name if len(ranks) <= _MOST_NAMED else None
        axes.plot(range(1, len(course) + 1), course, marker="o", markersize=3, linewidth=1.4, label=label)
    taus = [tau for tau in history.get("tau") or [] if tau > 0]
    if taus:
        null = [1 / tau**2 for tau in taus]
        axes.plot(range(1, len(null) + 1), null, color=_INK, linestyle="--", label="1 / tau² (nothing learnt)")
    axes.set_yscale("log")
    axes.set_xlabel("epoch", color=_INK)
    axes.set_ylabel("rank", color=_INK)
    axes.set_title("Ranks while training", loc="left", color=_INK, fontweight="bold")
    axes.grid(color="#e6e8eb", linewidth=0.8)
    axes.tick_params(colors=_PALE, labelsize=9, length=0)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, format="png")
