"""A line over epochs as SVG, for pages that have no room for a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN = 320, 170, 52, 22, 8
_COLOUR, _GRID, _TEXT = "#0072B2", "#e6e8eb", "#556"


def curve(points: Sequence[tuple[float, float]]) -> str:
    """Points joined by a line, with the ends of both axes labelled; points that are not finite are left out.

    Args:
        points: (x, y) in ascending x.
    """
    known = [(x, y) for x, y in points if math.isfinite(y)]
    if not known:
        return ""
    xs, ys = zip(*known, strict=True)
    low, high = min(ys), max(ys)
    places = [
        (_place(x, xs[0], xs[-1], _LEFT, _WIDTH - _MARGIN), _place(y, low, high, _HEIGHT - _BOTTOM, _MARGIN))
        for x, y in known
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{_COLOUR}"/>' for x, y in places)
    end = _WIDTH - _MARGIN
    grid = "".join(f'<path d="M{_LEFT} {y}H{end}" stroke="{_GRID}"/>' for y in (_MARGIN, _HEIGHT - _BOTTOM))
    labels = [
        _label(_LEFT - 6, _MARGIN + 4, "end", f"{high:.3g}"),
        _label(_LEFT - 6, _HEIGHT - _BOTTOM + 4, "end", f"{low:.3g}" if low < high else ""),
        _label(_LEFT, _HEIGHT - 6, "middle", f"{xs[0]:g}"),
        _label(end, _HEIGHT - 6, "end", f"{xs[-1]:g}" if len(known) > 1 else ""),
    ]
    stroke = f'<polyline points="{line}" fill="none" stroke="{_COLOUR}" stroke-width="1.8"/>'
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{grid}{stroke}{dots}{"".join(labels)}</svg>'


def _place(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (end - start) * ((value - low) / (high - low) if high > low else 0.0)


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="11" fill="{_TEXT}">{text}</text>'
