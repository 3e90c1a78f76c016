from __future__ import annotations

import random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from lrsearch.sweep.importance import importances

OBJECTIVES = {"accuracy": "max", "flops": "min"}
METHOD = CategoricalDistribution(["a", "b"])
UNIT = FloatDistribution(0, 1)


def trials(count: int) -> list[optuna.trial.FrozenTrial]:
    """The budget decides accuracy, the method FLOPs; a.z decides nothing, and b has nothing of its own."""
    generator = random.Random(0)
    made = []
    for _ in range(count):
        budget, z, method = generator.random(), generator.random(), generator.choice("ab")
        params = {"method": method, f"{method}.budget": budget} | ({"a.z": z} if method == "a" else {})
        distributions = {name: METHOD if name == "method" else UNIT for name in params}
        values = [budget, (method == "b") + 0.01 * z]
        made.append(create_trial(values=values, params=params, distributions=distributions))
    return made


def test_what_decides_an_objective_is_found_and_what_does_not_is_not():
    found = importances(trials(200), OBJECTIVES)
    assert found.keys() == {"all methods", "a"}, "one hyperparameter alone has nothing to be compared with"
    everywhere, within = found["all methods"], found["a"]
    assert everywhere["accuracy"].keys() == {"method", "budget"}
    assert within["accuracy"].keys() == {"budget", "z"}
    assert everywhere["accuracy"]["budget"] > 0.9 and everywhere["flops"]["method"] > 0.9
    assert within["accuracy"]["budget"] > 0.9
    for shares in (*everywhere.values(), *within.values()):
        assert sum(shares.values()) == pytest.approx(1)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_better_is_what_the_objective_says():
    known = trials(60)
    flipped = [create_trial(values=[-t.values[0]], params=t.params, distributions=t.distributions) for t in known]
    found = importances(flipped, {"accuracy_drop": "min"})
    for group, shares in importances(known, OBJECTIVES).items():
        assert found[group]["accuracy_drop"] == pytest.approx(shares["accuracy"])


def test_choices_may_be_of_any_kind():
    kinds = CategoricalDistribution([1, "auto", None, True])
    distributions = {"method": METHOD, "a.kind": kinds, "a.x": UNIT}
    generator = random.Random(0)
    known = [
        create_trial(
            values=[float(kind == "auto")],
            params={"method": "a", "a.kind": kind, "a.x": generator.random()},
            distributions=distributions,
        )
        for kind in kinds.choices * 10
    ]
    assert importances(known, {"accuracy": "max"})["a"]["accuracy"]["kind"] > 0.9


def test_too_few_trials_or_choices_say_nothing():
    assert importances([], OBJECTIVES) == {}
    assert importances(trials(9), OBJECTIVES) == {}
    same = {"method": "a", "a.x": 0.5}
    alike = [create_trial(values=[1.0, 1.0], params=same, distributions={"method": METHOD, "a.x": UNIT})] * 20
    assert importances(alike, OBJECTIVES) == {}
    failed = [create_trial(state=TrialState.FAIL, params=t.params, distributions=t.distributions) for t in trials(30)]
    assert importances(failed, OBJECTIVES) == {}


def test_nothing_decides_an_objective_that_never_changes():
    known = [
        create_trial(values=[1.0, t.values[1]], params=t.params, distributions=t.distributions) for t in trials(30)
    ]
    assert importances(known, OBJECTIVES)["a"].keys() == {"flops"}
