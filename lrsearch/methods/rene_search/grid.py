"""The candidate ranks of each stage, from low to high resolution.

Source: Aghababaei-Harandi and Amini, "Unified Framework for Pre-trained Neural Network Compression via Decomposition
and Optimized Rank Selection" (2025), section 4.3, Figure 3 and Algorithm 1, whose bounds come from the step before
it is divided, as in the figure. The rank after the largest that saves anything stands for the dense layer.
"""

from __future__ import annotations


def step_sizes(initial: int, factor: int, stages: int | None) -> list[int]:
    """The step of each stage: divided by ``factor`` each time, until it is 1 or there are as many as ``stages``."""
    sizes = [initial]
    while sizes[-1] > 1 and len(sizes) != stages:
        sizes.append(max(1, sizes[-1] // factor))
    return sizes


def first_grid(step: int, dense: int) -> list[int]:
    """The multiples of the step below ``dense``, or the rank before it where it is smaller, and ``dense``."""
    return [*(range(step, dense, step) or [dense - 1]), dense]


def narrowed(chosen: int, step: int, finer: int, dense: int) -> list[int]:
    """The ranks at a finer step from the chosen one, as far as half a step away (rounded up), with both ends.

    All are from 1 to ``dense``.
    """
    half = (step + 1) // 2
    low, high = max(1, chosen - half), min(dense, chosen + half)
    return sorted({low, *range(chosen, low, -finer), *range(chosen, high, finer), high})


def is_at_end(chosen: int, grid: list[int], dense: int) -> bool:
    """Whether ranks just beyond the grid might be better than the chosen one."""
    return 1 < chosen == grid[0] or grid[-1] == chosen < dense
