"""The candidate ranks of each stage, from low to high resolution.

Source: Aghababaei-Harandi and Amini, "Unified Framework for Pre-trained Neural Network Compression via Decomposition
and Optimized Rank Selection" (2025), section 4.3, Figure 3 and Algorithm 1, whose bounds come from the step before
it is divided, as in the figure.
"""

from __future__ import annotations


def step_sizes(initial: int, factor: int, stages: int | None) -> list[int]:
    """The step of each stage: divided by ``factor`` each time, until it is 1 or there are as many as ``stages``."""
    sizes = [initial]
    while sizes[-1] > 1 and len(sizes) != stages:
        sizes.append(max(1, sizes[-1] // factor))
    return sizes


def first_grid(step: int, cap: int) -> list[int]:
    """The multiples of the step up to ``cap``, or ``cap`` alone where it is smaller."""
    return list(range(step, cap + 1, step)) or [cap]


def narrowed(chosen: int, step: int, finer: int, cap: int) -> list[int]:
    """The ranks at a finer step from the chosen one, as far as half a step away (rounded up), with both ends.

    All are from 1 to ``cap``.
    """
    half = (step + 1) // 2
    low, high = max(1, chosen - half), min(cap, chosen + half)
    return sorted({low, *range(chosen, low, -finer), *range(chosen, high, finer), high})
