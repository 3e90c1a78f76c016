"""Several caps at once, against exhaustive search on small tables."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.allocate import Candidates, Rule, allocate
from lrsearch.allocate.rules import make_solver
from lrsearch.errors import BudgetUnreachableError

RULES: tuple[Rule, ...] = ("max", "sum", "constant", "alternating")
Problem = tuple[list[Candidates], list[int], np.ndarray]
"""A table, caps, and every choice that keeps them, of shape (choices, layers); there may be none."""


@st.composite
def tables(draw: st.DrawFn, unit: int = 1) -> list[Candidates]:
    """A dense candidate of error 0 that costs most in each of two or three columns, and up to five others."""
    columns = draw(st.integers(2, 3))
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        cost = st.lists(st.integers(0, 20), min_size=columns, max_size=columns)
        row = st.tuples(st.integers(1, 12).map(lambda e: e / 8), cost, st.integers(1, 3))
        rows = [(0.0, [draw(st.integers(21, 30)) for _ in range(columns)], 0), *draw(st.lists(row, max_size=5))]
        errors, costs, groups = (np.array(column) for column in zip(*rows, strict=True))
        layers.append(Candidates(errors.astype(np.float64), costs.astype(np.int64) * unit, groups.astype(np.int64)))
    return layers


@st.composite
def problems(draw: st.DrawFn, unit: int = 1) -> Problem:
    layers = draw(tables(unit))
    bounds = [[sum(f(layer.costs[:, c]) for layer in layers) for f in (np.min, np.max)] for c in range(columns(layers))]
    caps = [draw(st.integers(int(low), int(high) + 1)) for low, high in bounds]
    every = np.indices([len(layer.errors) for layer in layers]).reshape(len(layers), -1).T
    return layers, caps, every[(costs(layers, every) <= caps).all(axis=1)]


def columns(layers: Sequence[Candidates]) -> int:
    return int(layers[0].costs.shape[1])


def costs(layers: Sequence[Candidates], choices: np.ndarray) -> np.ndarray:
    """In each column, of each of (choices, layers)."""
    total: np.ndarray = sum(layer.costs[i] for layer, i in zip(layers, choices.T, strict=True))
    return total


def cost(layers: Sequence[Candidates], choice: Sequence[int]) -> np.ndarray:
    return np.sum([layer.costs[i] for layer, i in zip(layers, choice, strict=True)], axis=0)


def all_errors(layers: Sequence[Candidates], choices: np.ndarray) -> np.ndarray:
    """Of every layer in each of (choices, layers)."""
    return np.column_stack([layer.errors[i] for layer, i in zip(layers, choices.T, strict=True)])


def errors(layers: Sequence[Candidates], choice: Sequence[int]) -> list[float]:
    return [float(layer.errors[i]) for layer, i in zip(layers, choice, strict=True)]


def run(layers: list[Candidates], caps: Sequence[float], rule: Rule) -> list[int]:
    return allocate(layers, caps, rule, n_seeds=3, rng=np.random.default_rng(0))


@settings(max_examples=600, deadline=None)
@given(problems())
def test_max_is_exact(problem: Problem) -> None:
    layers, caps, affordable = problem
    if len(affordable):
        best = all_errors(layers, affordable).max(axis=1).min()
        assert max(errors(layers, run(layers, caps, "max"))) == best


@settings(max_examples=100, deadline=None)
@given(problems(unit=10**9))
def test_max_is_exact_up_to_rounding_for_large_costs(problem: Problem) -> None:
    """Costs of 10^9 and more; sums that come nearer to a cap than two millionths of it may count as above it."""
    layers, caps, affordable = problem
    clear = affordable[(costs(layers, affordable) <= np.array(caps) * (1 - 3e-6)).all(axis=1)]
    if len(clear):
        found = run(layers, caps, "max")
        assert (cost(layers, found) <= caps).all()
        assert max(errors(layers, found)) <= all_errors(layers, clear).max(axis=1).min()


@settings(max_examples=200, deadline=None)
@given(problems())
def test_sum_is_within_a_thousandth(problem: Problem) -> None:
    layers, caps, affordable = problem
    if len(affordable):
        best = all_errors(layers, affordable).sum(axis=1).min()
        assert best - 1e-12 <= sum(errors(layers, run(layers, caps, "sum"))) <= best * 1.001 + 1e-5


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=200, deadline=None)
@given(problem=problems())
def test_every_cap_is_kept_and_no_single_better_candidate_fits(rule: Rule, problem: Problem) -> None:
    layers, caps, affordable = problem
    if not len(affordable):
        return
    choice = run(layers, caps, rule)
    spent = cost(layers, choice)
    assert (spent <= caps).all()
    for layer, index in zip(layers, choice, strict=True):
        now = layer.costs[index]
        size, sizes = (1 - kept(layer, costs) for costs in (now[None], layer.costs))
        better = sizes < size if rule == "constant" else layer.errors < layer.errors[index]
        undominated = ~np.array([dominated(layer, i) for i in range(len(layer.errors))])
        assert not (better & undominated & (spent - now + layer.costs <= caps).all(axis=1)).any()


def kept(layer: Candidates, costs: np.ndarray) -> np.ndarray:
    """The smallest of the fractions of the dense costs."""
    return (costs / layer.costs.max(axis=0)).min(axis=1)


def dominated(layer: Candidates, index: int) -> bool:
    points = np.column_stack([layer.errors, layer.costs])
    return bool(((points <= points[index]).all(axis=1) & (points < points[index]).any(axis=1)).any())


@settings(max_examples=200, deadline=None)
@given(problems())
def test_constant_keeps_equal_fractions_as_nearly_as_candidates_allow(problem: Problem) -> None:
    layers, caps, affordable = problem
    inside = [np.array([dominated(layer, i) for i in range(len(layer.errors))]) for layer in layers]
    on_fronts = affordable[~np.any([of[i] for of, i in zip(inside, affordable.T, strict=True)], axis=0)]
    if len(on_fronts):
        best, found = (
            max(smallest_fraction(layers, c) for c in cs) for cs in (on_fronts, [run(layers, caps, "constant")])
        )
        assert found == pytest.approx(best)


def smallest_fraction(layers: Sequence[Candidates], choice: Sequence[int]) -> float:
    return min(float(kept(layer, layer.costs[i][None])[0]) for layer, i in zip(layers, choice, strict=True))


@settings(max_examples=200, deadline=None)
@given(problems())
def test_alternating_never_beats_max(problem: Problem) -> None:
    layers, caps, affordable = problem
    if len(affordable):
        exact, found = (max(errors(layers, run(layers, caps, rule))) for rule in ("max", "alternating"))
        assert exact <= found


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_caps_are_out_of_reach_exactly_where_no_choice_keeps_them(rule: Rule, problem: Problem) -> None:
    layers, caps, affordable = problem
    if len(affordable):
        run(layers, caps, rule)
        return
    with pytest.raises(BudgetUnreachableError) as caught:
        run(layers, caps, rule)
    assert caught.value.each == tuple(np.sum([layer.costs.min(axis=0) for layer in layers], axis=0))


@settings(max_examples=100, deadline=None)
@given(tables(), st.data())
def test_a_cap_without_effect_leaves_the_problem_of_one_cap(layers: list[Candidates], data: st.DataObject) -> None:
    """Two equal columns, or a second one that has room for everything."""
    one = [Candidates(layer.errors, layer.costs[:, 0], layer.groups) for layer in layers]
    low, high = (sum(int(f(layer.costs)) for layer in one) for f in (np.min, np.max))
    cap = data.draw(st.integers(low, high))
    twice = [Candidates(layer.errors, layer.costs[:, None].repeat(2, axis=1), layer.groups) for layer in one]
    best = max(errors(one, allocate(one, cap, "max")))
    assert max(errors(twice, allocate(twice, [cap, cap], "max"))) == best
    assert max(errors(twice, allocate(twice, [cap, high], "max"))) == best


def test_no_layers_no_choice() -> None:
    for rule in RULES:
        assert allocate([], [0, 0], rule, rng=np.random.default_rng(0)) == []


def test_a_network_of_many_layers_is_solved_near_its_bound() -> None:
    """Sixty layers of four hundred candidates, whose two costs do not follow each other.

    One cap alone is a relaxation, so that it bounds what both can reach.
    """
    rng = np.random.default_rng(0)
    layers = []
    for _ in range(60):
        ranks = np.arange(400)
        errors_ = np.append(0.0, np.exp(-rng.uniform(0.002, 0.02) * ranks) * rng.uniform(0.5, 1))
        costs = np.outer(ranks, rng.integers(1, 100, 2)) + rng.integers(0, 50, (400, 2))
        dense = costs.max(axis=0) + 1
        layers.append(Candidates(errors_, np.vstack([dense, costs]), np.zeros(401, dtype=np.int64)))
    caps = (np.sum([layer.costs[0] for layer in layers], axis=0) * 0.3).astype(int)
    for rule, objective in (("max", max), ("sum", sum)):
        found = allocate(layers, caps.tolist(), rule)
        assert (cost(layers, found) <= caps).all()
        singles = [
            allocate([Candidates(la.errors, la.costs[:, c], la.groups) for la in layers], caps[c], rule)
            for c in range(2)
        ]
        assert make_solver(layers, caps.tolist()).cheapest() is not None
        assert objective(errors(layers, found)) >= max(objective(errors(layers, s)) for s in singles) - 1e-9
