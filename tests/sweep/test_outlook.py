"""How trainings may end: the line against scikit-learn's, and its error against leaving trials out one by one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from lrsearch.sweep.outlook import Outlook


def learnt(stands, gains, order=None):
    outlook = Outlook()
    for number in order or range(len(gains)):
        outlook.learn(number, list(stands[number]), stands[number][0] + gains[number])
    return outlook


@given(st.integers(5, 12), st.integers(1, 3), st.integers(0, 1000))
def test_hope_is_what_a_line_expects_and_the_error_it_makes_of_trials_left_out(trials, coordinates, seed):
    draw = np.random.default_rng(seed)
    stands, here = 50 + 10 * draw.standard_normal((trials, coordinates)), 50 + 10 * draw.standard_normal(coordinates)
    gains = 5 * draw.standard_normal(trials)
    centre, spread = stands.mean(0), stands.std(0)
    places, place = (stands - centre) / spread, (here - centre) / spread

    def line(chosen):
        # Weights as a user of augmented rows would find them: the level is free, every slope pulled towards 0.
        pull = np.sqrt(0.01 * trials) * np.eye(coordinates + 1)[1:]
        rows = np.concatenate([np.insert(places[chosen], 0, 1, axis=1), pull])
        return np.linalg.lstsq(rows, np.concatenate([gains[chosen], np.zeros(coordinates)]), rcond=None)[0]

    everyone = np.arange(trials)
    weights = line(everyone)
    library = Ridge(alpha=0.01 * trials).fit(places, gains)
    assert weights[0] == pytest.approx(library.intercept_, abs=1e-6)
    missed = [gains[i] - np.insert(places[i], 0, 1) @ line(everyone[everyone != i]) for i in everyone]
    doubt = np.insert(place, 0, 1) @ np.linalg.inv(_gram(places)) @ np.insert(place, 0, 1)

    expected = here[0] + library.predict([place])[0] + math.sqrt(np.mean(np.square(missed)) * (1 + doubt))
    assert learnt(stands, gains).hoped(list(here)) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def _gram(places):
    rows = np.insert(places, 0, 1, axis=1)
    return rows.T @ rows + 0.01 * len(places) * np.diag([0.0] + [1.0] * places.shape[1])


def test_too_few_trials_tell_nothing_and_alike_ones_tell_what_they_gained():
    stands, gains = [(60.0, 7.0)] * 5, [12.0] * 5
    assert learnt(stands[:4], gains[:4]).hoped([60.0, 7.0]) == math.inf
    assert learnt(stands, gains).hoped([60.0, 7.0]) == pytest.approx(72.0)


def test_long_sweeps_are_told_by_their_latest_trials():
    draw = np.random.default_rng(0)
    stands, gains = draw.standard_normal((230, 2)), draw.standard_normal(230)
    gains[:30] += 50
    assert learnt(stands, gains).hoped([0.0, 0.0]) == pytest.approx(learnt(stands[30:], gains[30:]).hoped([0.0, 0.0]))


@given(st.permutations(range(6)))
def test_order_in_which_trials_ended_changes_nothing(order):
    stands, gains = [(i * 0.1, math.sin(i)) for i in range(6)], [math.cos(i) for i in range(6)]
    assert learnt(stands, gains, order).hoped([0.3, 0.3]) == learnt(stands, gains).hoped([0.3, 0.3])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8), st.integers(0, 6), st.integers(0, 6))
def test_nobody_is_given_up_who_stood_better_than_all_that_failed_or_no_worse_than_one_that_did_not(
    trials, bound, accuracy
):
    outlook = learnt([(there, 7.0) for there, _ in trials], [end - there for there, end in trials])
    as_accurate_failed = any(there >= accuracy and end < bound for there, end in trials)
    as_inaccurate_made_it = any(there <= accuracy and end >= bound for there, end in trials)
    given_up = as_accurate_failed and not as_inaccurate_made_it and outlook.hoped([accuracy, 7.0]) < bound
    assert outlook.may_reach(bound, [accuracy, 7.0]) == (not given_up)


def test_one_collapse_condemns_only_who_stands_as_low():
    there, end = [81.0, 25.0, 95.0, 89.0, 88.0], [95.5, 31.0, 97.0, 96.0, 98.0]
    stands = [(accuracy, flops) for accuracy, flops in zip(there, [70.0, 89.0, 27.0, 60.0, 12.0], strict=True)]
    outlook = learnt(stands, [e - t for t, e in zip(there, end, strict=True)])
    assert outlook.hoped([29.0, 73.0]) < 87
    assert outlook.may_reach(87.0, [29.0, 73.0])
    assert not outlook.may_reach(87.0, [25.0, 73.0])
