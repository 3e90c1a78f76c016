"""What the axes of all still pictures look like."""

from typing import Any

INK, PALE = "#222222", "#8a8f98"


def dress(axes: Any) -> None:
    """A light grid behind the marks, and no frame but the two axes."""
    axes.grid(color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#c9cdd3")
