import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lrsearch.allocate import Candidates, Rule, allocate, alternation
from lrsearch.allocate.rules import make_solver
from lrsearch.errors import BudgetUnreachableError

RULES: tuple[Rule, ...] = ("max", "sum", "constant", "alternating")


def candidates(rows: Sequence[tuple[float, int, int]]) -> Candidates:
    errors, costs, groups = (np.array(column) for column in zip(*rows, strict=True))
    return Candidates(errors.astype(np.float64), costs.astype(np.int64), groups.astype(np.int64))


@st.composite
def tables(draw: st.DrawFn, max_layers: int = 4) -> list[Candidates]:
    """A dense candidate of error 0 that costs more than all others, and up to five others, with ties."""
    layers = []
    for _ in range(draw(st.integers(1, max_layers))):
        row = st.tuples(st.integers(1, 12).map(lambda e: e / 8), st.integers(1, 20), st.integers(1, 3))
        others = draw(st.lists(row, max_size=5))
        layers.append(candidates([(0.0, draw(st.integers(21, 40)), 0), *others]))
    return layers


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Candidates], int]:
    layers = draw(tables())
    cheapest, dense = (sum(int(f(layer.costs)) for layer in layers) for f in (np.min, np.max))
    return layers, draw(st.integers(cheapest, dense + 1))


def run(layers: list[Candidates], cap: float, rule: Rule) -> list[int]:
    return allocate(layers, cap, rule, n_seeds=5, rng=np.random.default_rng(0))


def cost(layers: list[Candidates], choice: Sequence[int]) -> int:
    return sum(int(layer.costs[i]) for layer, i in zip(layers, choice, strict=True))


def errors(layers: list[Candidates], choice: Sequence[int]) -> list[float]:
    return [float(layer.errors[i]) for layer, i in zip(layers, choice, strict=True)]


def affordable(layers: list[Candidates], cap: float) -> list[tuple[int, ...]]:
    every = itertools.product(*[range(len(layer.costs)) for layer in layers])
    return [choice for choice in every if cost(layers, choice) <= cap]


@settings(max_examples=400, deadline=None)
@given(problems())
def test_max_is_exact(problem: tuple[list[Candidates], int]) -> None:
    layers, cap = problem
    best = min(max(errors(layers, choice)) for choice in affordable(layers, cap))
    assert max(errors(layers, run(layers, cap, "max"))) == best


@settings(max_examples=400, deadline=None)
@given(problems())
def test_sum_is_within_its_gap(problem: tuple[list[Candidates], int]) -> None:
    layers, cap = problem
    best = min(sum(errors(layers, choice)) for choice in affordable(layers, cap))
    found = sum(errors(layers, run(layers, cap, "sum")))
    assert best <= found + 1e-12
    assert found <= best + max(largest_hull_step(layer) for layer in layers) + 1e-12


def largest_hull_step(layer: Candidates) -> float:
    """By definition: a candidate is on the lower convex hull if no mixture of two others is below it."""
    points = sorted(set(zip(layer.costs.tolist(), layer.errors.tolist(), strict=True)))
    cheapest = min(cost for cost, _ in points)
    hull = [p for p in points if not any(is_above(p, a, b) for a in points for b in points)]
    hull = [min((p for p in points if p[0] == cheapest), key=lambda p: p[1]), *[p for p in hull if p[0] > cheapest]]
    drops = [a[1] - b[1] for a, b in itertools.pairwise(hull) if a[1] > b[1]]
    return max(drops, default=0.0)


def is_above(p: tuple[int, float], a: tuple[int, float], b: tuple[int, float]) -> bool:
    if p in (a, b) or not a[0] <= p[0] <= b[0]:
        return False
    share = (p[0] - a[0]) / (b[0] - a[0]) if b[0] > a[0] else 0.0
    return p[1] >= (1 - share) * a[1] + share * b[1] - 1e-12


def test_sum_takes_the_optimum_where_steps_fill_the_cap() -> None:
    layers = [candidates([(0, 10, 0), (4, 2, 1), (1, 5, 1)]), candidates([(0, 10, 0), (9, 2, 1), (3, 4, 1)])]
    assert run(layers, 9, "sum") == [2, 2]


@settings(max_examples=200, deadline=None)
@given(problems())
def test_constant_keeps_equal_fractions_as_nearly_as_candidates_allow(
    problem: tuple[list[Candidates], int],
) -> None:
    """Exhaustively: no affordable choice keeps a larger smallest fraction of its layers' dense costs."""
    layers, cap = problem
    best = max(min(fractions(layers, choice)) for choice in affordable_on_fronts(layers, cap))
    assert min(fractions(layers, run(layers, cap, "constant"))) == pytest.approx(best)


def fractions(layers: list[Candidates], choice: Sequence[int]) -> list[float]:
    return [layer.costs[i] / layer.costs.max() for layer, i in zip(layers, choice, strict=True)]


def affordable_on_fronts(layers: list[Candidates], cap: float) -> list[tuple[int, ...]]:
    return [c for c in affordable(layers, cap) if all(undominated(la, i) for la, i in zip(layers, c, strict=True))]


def undominated(layer: Candidates, index: int) -> bool:
    better_or_equal = (layer.costs <= layer.costs[index]) & (layer.errors <= layer.errors[index])
    strictly = (layer.costs < layer.costs[index]) | (layer.errors < layer.errors[index])
    return not bool((better_or_equal & strictly).any())


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=200, deadline=None)
@given(problem=problems())
def test_the_cap_is_kept_and_no_single_next_step_fits(rule: Rule, problem: tuple[list[Candidates], int]) -> None:
    layers, cap = problem
    choice = run(layers, cap, rule)
    spent = cost(layers, choice)
    assert spent <= cap
    for layer, index in zip(layers, choice, strict=True):
        assert undominated(layer, index)
        better = layer.costs[layer.errors < layer.errors[index]]
        assert not len(better) or spent - layer.costs[index] + better.min() > cap


@settings(max_examples=300, deadline=None)
@given(problems())
def test_alternating_never_beats_max(problem: tuple[list[Candidates], int]) -> None:
    layers, cap = problem
    exact, found = (max(errors(layers, run(layers, cap, rule))) for rule in ("max", "alternating"))
    assert exact <= found


@settings(max_examples=300, deadline=None)
@given(problems(), st.data())
def test_alternation_falls_from_round_to_round_within_the_cap(
    problem: tuple[list[Candidates], int], data: st.DataObject
) -> None:
    layers, cap = problem
    start = [data.draw(st.sampled_from(sorted(set(layer.groups.tolist())))) for layer in layers]
    rounds = list(alternation(make_solver(layers, cap), start))
    assert rounds
    for largest, choice in rounds:
        assert cost(layers, choice) <= cap
        assert max(errors(layers, choice)) == largest
    assert all(later < earlier for (earlier, _), (later, _) in itertools.pairwise(rounds))


def test_alternation_can_stop_short_of_the_optimum() -> None:
    """From three subspaces the two layers block each other: neither gains by moving alone."""
    rows = [(0.0, 9, 0), (0.9, 1, 1), (0.2, 4, 1), (0.5, 3, 2), (0.4, 5, 2)]
    layers = [candidates(rows), candidates(rows)]
    stuck = list(alternation(make_solver(layers, 8), [2, 2]))
    assert stuck[-1][0] > max(errors(layers, run(layers, 8, "max")))


@given(problems())
@settings(deadline=None)
def test_same_seed_same_choice(problem: tuple[list[Candidates], int]) -> None:
    layers, cap = problem
    assert run(layers, cap, "alternating") == run(layers, cap, "alternating")


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=50, deadline=None)
@given(layers=tables())
def test_an_unreachable_cap_says_the_smallest_reachable_one(rule: Rule, layers: list[Candidates]) -> None:
    smallest = sum(int(layer.costs.min()) for layer in layers)
    with pytest.raises(BudgetUnreachableError) as caught:
        run(layers, smallest - 1, rule)
    assert caught.value.smallest == smallest
    assert cost(layers, run(layers, smallest, rule)) == smallest


@given(tables())
@settings(max_examples=50, deadline=None)
def test_with_room_for_all_every_layer_is_exact(layers: list[Candidates]) -> None:
    cap = sum(int(layer.costs.max()) for layer in layers)
    assume(all((layer.errors[1:] > 0).all() for layer in layers))
    for rule in RULES:
        assert run(layers, cap, rule) == [0] * len(layers)


def test_an_exact_factorization_is_preferred_to_the_dense_layer() -> None:
    layers = [candidates([(0.0, 10, 0), (0.5, 2, 1), (0.0, 4, 1)])]
    for rule in RULES:
        assert run(layers, 100, rule) == [2]


def test_no_layers_no_choice() -> None:
    for rule in RULES:
        assert run([], 0, rule) == []


def test_alternating_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="random generator"):
        allocate([candidates([(0.0, 1, 0)])], 1, "alternating")
