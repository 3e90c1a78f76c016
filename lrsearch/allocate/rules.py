"""The rules by which a budget is spread over layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from lrsearch.allocate.alternating import best_alternation
from lrsearch.allocate.candidates import Candidates, Solver
from lrsearch.allocate.one_cap import OneCap
from lrsearch.allocate.several_caps import SeveralCaps
from lrsearch.errors import BudgetUnreachableError

Rule = Literal["max", "alternating", "sum", "constant"]


def allocate(
    layers: Sequence[Candidates],
    cap: float | Sequence[float],
    rule: Rule = "max",
    *,
    n_seeds: int = 15,
    rng: np.random.Generator | None = None,
) -> list[int]:
    """Choose one candidate for each layer so that their costs add up to ``cap`` at most.

    The choice is maximal: no single layer could move to the next candidate of its front within the cap, with several
    caps to any candidate of smaller error. What a rule leaves of the cap is spent step by step along the fronts,
    among the steps that fit on the one that removes most error for its cost; by ``constant`` on the layer that
    keeps the smallest fraction.

    Args:
        layers: the candidates of each layer.
        cap: the largest sum of costs, or that of each column of costs.
        rule: ``max`` minimises the largest error, exactly. ``alternating`` minimises it as ALDS Algorithm 1
            does, from ``n_seeds`` random starts. ``sum`` minimises the sum of errors, up to a gap of at most the
            largest error that one step along the lower convex hull of a layer's front removes; with several caps
            up to a thousandth of that sum. ``constant`` keeps the same fraction of every layer's dense cost, as
            nearly as candidates allow; with several caps the smallest of a layer's fractions counts.
        n_seeds: random starts of ``alternating``.
        rng: what ``alternating`` draws from; required by it alone.

    Returns:
        For each layer the index of its candidate.

    Raises:
        BudgetUnreachableError: no choice keeps the caps.
    """
    solver = make_solver(layers, cap)
    if solver.cheapest() is None:
        raise _unreachable(solver.smallest(), np.atleast_1d(cap).tolist())
    if rule == "constant":
        return solver.constant()
    if rule == "sum":
        return solver.fill(solver.minimise_sum())
    if rule == "max":
        return solver.fill(_found(solver.minimise_largest()))
    if rng is None:
        raise ValueError("rule alternating needs a random generator")
    return solver.fill(best_alternation(solver, n_seeds, rng))


def make_solver(layers: Sequence[Candidates], cap: float | Sequence[float]) -> Solver:
    """The solver for the number of caps."""
    caps = np.atleast_1d(cap)
    return OneCap(layers, float(caps[0])) if len(caps) == 1 else SeveralCaps(layers, caps.tolist())


def _found(choice: list[int] | None) -> list[int]:
    assert choice is not None  # noqa: S101 - the cheapest choice keeps the caps
    return choice


def _unreachable(each: tuple[float, ...], caps: Sequence[float]) -> BudgetUnreachableError:
    pairs = list(zip(each, caps, strict=True))
    costs = " and ".join(
        f"{cost:g}, more than {cap:g}" if cost > cap else f"{cost:g} of {cap:g}" for cost, cap in pairs
    )
    together = "" if any(cost > cap for cost, cap in pairs) else ", but not together"
    smallest = next((cost for cost, cap in pairs if cost > cap), each[0])
    return BudgetUnreachableError(f"the cheapest choice costs {costs}{together}", smallest, each)
