from __future__ import annotations

import pytest

from lrsearch.record import TrialRecord
from lrsearch.tracking.parallel import coordinates


def trial(number: int, **hyperparameters: object) -> TrialRecord:
    return TrialRecord(
        number, "complete", "m", accuracy=90.0 + number, cr_p=50.0, cr_f=50.0, speedup=1.0 + number,
        hyperparameters=hyperparameters,
    )  # fmt: skip


def test_what_varies_has_an_axis_and_what_came_of_it_follows():
    trials = [trial(n, budget={"params": b, "flops": None}, k=2) for n, b in enumerate((0.2, 0.4, 0.6))]
    axes, lines = coordinates(trials)
    assert [axis.title for axis in axes] == ["budget.params", "CR-P, %", "CR-F, %", "speed-up, ×", "accuracy, %"]
    assert [lines[n][0] for n in range(3)] == pytest.approx([0.0, 0.5, 1.0])
    assert all(lines[n][1] == 0.5 for n in range(3)), "a single value is in the middle"
    assert axes[0].ticks == [(0.0, "0.2"), (0.5, "0.4"), (1.0, "0.6")]


def test_wide_ranges_are_logarithmic():
    axes, lines = coordinates([trial(n, beta=10.0**n) for n in range(3)])
    assert [lines[n][0] for n in range(3)] == pytest.approx([0.0, 0.5, 1.0])
    assert axes[0].ticks[1] == (0.5, "10")


def test_choices_are_places_of_their_own():
    axes, lines = coordinates([trial(n, scheme=scheme) for n, scheme in enumerate((1, "auto", True))])
    assert axes[0].ticks == [(0.0, "1"), (0.5, "True"), (1.0, "auto")]
    assert [lines[n][0] for n in range(3)] == [0.0, 1.0, 0.5]


def test_a_trial_that_lacks_a_value_is_left_out():
    trials = [trial(0, k=1), trial(1, k=2), TrialRecord(2, "complete", "m", hyperparameters={"k": 3})]
    assert coordinates(trials)[1].keys() == {0, 1}
    assert coordinates([]) == ([], {})
