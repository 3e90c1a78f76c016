from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrsearch.front import Front, gain, hypervolume, is_feasible, knee, least_gain, mark_front, pareto_mask
from lrsearch.record import DIRECTIONS, DenseRecord, TrialRecord

DENSE = DenseRecord(params=1000, flops=20_000, accuracy=98.0, test_accuracy=97.5, throughput=500.0, seconds=9.0)


@st.composite
def point_sets(draw, low=0, high=4, max_size=12):
    objectives = draw(st.integers(1, 4))
    return draw(st.lists(st.tuples(*[st.integers(low, high)] * objectives), min_size=1, max_size=max_size))


def dominates(a, b, directions):
    better = [x > y if d == "max" else x < y for x, y, d in zip(a, b, directions, strict=True)]
    worse = [x < y if d == "max" else x > y for x, y, d in zip(a, b, directions, strict=True)]
    return any(better) and not any(worse)


def covered_cells(points, reference):
    """Hypervolume of integer points by counting the unit cells between reference and points."""
    tops = [max(p[i] for p in points) for i in range(len(reference))]
    cells = itertools.product(*[range(r, t) for r, t in zip(reference, tops, strict=True)])
    return sum(any(all(c < x for c, x in zip(cell, p, strict=True)) for p in points) for cell in cells)


@given(st.data(), point_sets())
def test_mask_is_the_definition(data, points):
    directions = data.draw(st.lists(st.sampled_from(["max", "min"]), min_size=len(points[0]), max_size=len(points[0])))
    expected = [not any(dominates(other, p, directions) for other in points) for p in points]
    assert pareto_mask(points, directions) == expected


@given(st.data(), point_sets())
def test_mask_follows_a_permutation(data, points):
    directions = ["max"] * len(points[0])
    order = data.draw(st.permutations(range(len(points))))
    mask = pareto_mask(points, directions)
    assert pareto_mask([points[i] for i in order], directions) == [mask[i] for i in order]


def test_mask_of_nothing():
    assert pareto_mask([], ["max", "min"]) == []


@given(point_sets(low=-1, high=4))
def test_hypervolume_counts_cells(points):
    reference = [0] * len(points[0])
    assert hypervolume(points, reference) == pytest.approx(covered_cells(points, reference), abs=1e-9)


@given(point_sets(low=-3, high=3, max_size=6), st.integers(-3, 1))
def test_hypervolume_from_any_reference(points, origin):
    reference = [origin] * len(points[0])
    assert hypervolume(points, reference) == pytest.approx(covered_cells(points, reference), abs=1e-9)


@given(st.lists(st.tuples(*[st.floats(0.01, 1)] * 3), min_size=1, max_size=6))
def test_hypervolume_is_inclusion_exclusion(points):
    expected = math.fsum(
        (-1) ** (size + 1) * math.prod(map(min, zip(*subset, strict=True)))
        for size in range(1, len(points) + 1)
        for subset in itertools.combinations(points, size)
    )
    assert hypervolume(points, [0, 0, 0]) == pytest.approx(expected, abs=1e-9)


def test_hypervolume_is_what_random_darts_hit():
    rng = random.Random(0)
    points = [[rng.random() for _ in range(5)] for _ in range(15)]
    darts = 20_000
    hits = sum(
        any(all(x <= top for x, top in zip(dart, p, strict=True)) for p in points)
        for dart in ([rng.random() for _ in range(5)] for _ in range(darts))
    )
    volume = hypervolume(points, [0] * 5)
    assert volume == pytest.approx(hits / darts, abs=4 * math.sqrt(volume * (1 - volume) / darts))


@given(st.data(), point_sets())
def test_a_dominated_point_and_order_change_nothing(data, points):
    reference = [0] * len(points[0])
    below = tuple(x - data.draw(st.integers(0, 2)) for x in data.draw(st.sampled_from(points)))
    shuffled = data.draw(st.permutations([*points, below]))
    assert hypervolume(shuffled, reference) == pytest.approx(hypervolume(points, reference), abs=1e-9)


def test_hypervolume_of_nothing():
    assert hypervolume([], [0, 0]) == 0.0


def test_gains_are_the_fractions_they_say():
    record = TrialRecord(
        number=0, state="complete", method="alds", params=250, flops=5000, cr_p=75.0, cr_f=75.0,
        accuracy=97.0, accuracy_drop=1.0, throughput=900.0, speedup=1.8, seconds=60.0,
    )  # fmt: skip
    names = [
        "accuracy",
        "params",
        "flops",
        "cr_p",
        "cr_f",
        "throughput",
        "speedup",
        "accuracy_drop",
        "seconds",
    ]
    assert gain(record, DENSE, names) == pytest.approx([0.97, 0.75, 0.75, 0.75, 0.75, 1.8, 1.8, 0.97, 0.5])


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_better_value_gains_more_and_no_value_nothing(name):
    low, high = (gain(TrialRecord(0, "complete", "alds", **{name: v}), DENSE, [name])[0] for v in (10, 20))
    assert (low < high) if DIRECTIONS[name] == "max" else (low > high)
    assert gain(TrialRecord(0, "failed", "alds"), DENSE, [name]) == [0.0]


def test_a_bound_holds_from_its_metrics_good_side():
    record = TrialRecord(0, "complete", "alds", accuracy=95.0, accuracy_drop=3.0)
    assert is_feasible(record, {"accuracy": 95.0, "accuracy_drop": 3.0})
    assert not is_feasible(record, {"accuracy": 95.1})
    assert not is_feasible(record, {"accuracy_drop": 2.9})
    assert not is_feasible(record, {"speedup": 1.0}), "an unknown metric keeps no bound"


def test_front_is_drawn_from_complete_feasible_measured_trials():
    def trial(number, state="complete", **metrics):
        return TrialRecord(number, state, "alds", pareto=True, **metrics)

    records = [
        trial(0, accuracy=99.0, flops=100, accuracy_drop=0.0),
        trial(1, accuracy=98.0, flops=100, accuracy_drop=1.0),
        trial(2, accuracy=90.0, flops=10, accuracy_drop=9.0),
        trial(3, accuracy=97.0, flops=50, accuracy_drop=2.0),
        trial(4, accuracy=97.0, flops=50, accuracy_drop=2.0),
        trial(5, state="failed", accuracy=100.0, flops=1, accuracy_drop=0.0),
        trial(6, accuracy=100.0, accuracy_drop=0.0),
        trial(7, accuracy=math.nan, flops=1, accuracy_drop=0.0),
    ]
    mark_front(records, {"accuracy": "max", "flops": "min"}, {"accuracy_drop": 5.0})
    assert [r.number for r in records if r.pareto] == [0, 3, 4]


def test_knee_is_nearest_to_the_best_of_everything_in_any_units():
    points = [(99.0, 1000), (98.5, 300), (90.0, 250), (60.0, 100)]
    front = [TrialRecord(i, "complete", "svd", accuracy=a, params=p) for i, (a, p) in enumerate(points)]
    objectives = {"accuracy": "max", "params": "min"}

    assert knee(front, objectives).number == 1
    assert knee([*front, TrialRecord(4, "complete", "svd", accuracy=10.0, params=90)], objectives).number == 1
    assert knee(front, {"params": "min"}).number == 3
    assert knee(front[:1], objectives).number == 0
    for record in front:
        record.params *= 1000
    assert knee(front, objectives).number == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 5), st.booleans()), max_size=20))
def test_growing_front_is_the_front_of_all(trials):
    """After every trial: the same members, the same volume, and word of each that left."""
    objectives, constraints = {"accuracy": "max", "flops": "min", "speedup": "max"}, {"accuracy_drop": 60.0}
    front = Front(objectives, constraints, DENSE)
    records, known = [], set()
    for number, (accuracy, flops, speedup, complete) in enumerate(trials):
        record = TrialRecord(
            number=number,
            state="complete" if complete else "pruned",
            method="alds",
            accuracy=20.0 * accuracy,
            accuracy_drop=98.0 - 20.0 * accuracy,
            flops=4000 * flops,
            speedup=float(speedup),
        )
        left = front.add(record)
        records.append(record)
        kept = {r.number for r in records if r.pareto}
        assert {r.number for r in left} == known - kept
        assert {r.number for r in front.members} == kept
        known = kept
        mark_front(records, objectives, constraints)
        assert {r.number for r in records if r.pareto} == kept
        gains = [gain(r, DENSE, objectives) for r in records if r.pareto]
        assert front.hypervolume == pytest.approx(hypervolume(gains, [0.0] * 3), abs=1e-9)


@pytest.mark.parametrize(
    ("objective", "constraints", "least"),
    [
        ("accuracy", {}, 0.0),
        ("accuracy", {"accuracy_drop": 8.0}, 0.9),
        ("accuracy", {"accuracy_drop": 8.0, "accuracy": 95.0}, 0.95),
        ("accuracy_drop", {"accuracy": 95.0}, 0.95),
        ("accuracy_drop", {"accuracy_drop": 8.0}, 0.9),
        ("flops", {"flops": 5_000.0, "accuracy_drop": 8.0}, 0.75),
        ("throughput", {"flops": 5_000.0}, 0.0),
    ],
)
def test_bounds_say_which_gain_is_the_least_of_use(objective, constraints, least):
    assert least_gain(objective, constraints, DENSE) == pytest.approx(least)
