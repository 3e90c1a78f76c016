"""Early stopping on the simulator: nobody stops who is not dominated, and killed drivers change no decision."""

import math
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrsearch.outcome import pruned_result, read_result, write_result
from lrsearch.record import Report
from lrsearch.search_config import RungsConfig
from lrsearch.sweep.outlook import Outlook
from lrsearch.sweep.rungs import Rungs
from lrsearch.sweep.study import read_records
from tests.sweep.simulator import grid_space, make_space, measured, open_session, run, work

OBJECTIVES = {"accuracy": "max", "flops": "min"}


def dominated(metrics, others):
    """Whether another is nowhere worse and somewhere better."""
    return any(o["accuracy"] >= metrics["accuracy"] and o["flops"] <= metrics["flops"] and o != metrics for o in others)


POINT = st.fixed_dictionaries({"accuracy": st.integers(0, 6), "flops": st.integers(0, 6)})


@given(st.lists(st.tuples(POINT, st.integers(0, 3)), min_size=1, max_size=40), st.integers(2, 4))
def test_only_who_is_dominated_now_and_in_hope_stops(trials, factor):
    rungs, outlook, stood, ended = Rungs(RungsConfig(first=1, factor=factor), OBJECTIVES), Outlook(), [], []
    for number, (metrics, gain) in enumerate(trials):
        verdict = rungs.judge(number, 9, 1, metrics)

        stood.append(metrics)
        ranks = ranks_of(stood)
        assert verdict.reached == number + 1
        assert verdict.better == sum(rank < ranks[-1] for rank in ranks)
        stand = [metrics["accuracy"], metrics["flops"]]
        hoped = metrics | {"accuracy": outlook.hoped(stand)}
        enough_are_worse = verdict.better < verdict.reached / factor
        assert verdict.goes_on == (enough_are_worse or not dominated(hoped, ended))
        assert verdict.goes_on or ranks[-1] > 0
        if verdict.goes_on:
            ended.append(metrics | {"accuracy": metrics["accuracy"] + gain})
            rungs.ended(number, ended[-1])
            outlook.learn(number, stand, metrics["accuracy"] + gain)


def ranks_of(points):
    """Non-domination ranks by peeling one front after another off."""
    ranks, left = [0] * len(points), set(range(len(points)))
    while left:
        left = {i for i in left if dominated(points[i], [points[j] for j in left])}
        for behind in left:
            ranks[behind] += 1
    return ranks


@given(st.lists(st.tuples(POINT, st.integers(0, 3)), min_size=6, max_size=20))
def test_lost_accuracy_is_judged_as_accuracy_is(trials):
    rungs = {
        way: Rungs(RungsConfig(first=1), {name: way, "flops": "min"})
        for name, way in (("accuracy", "max"), ("accuracy_drop", "min"))
    }
    for number, (metrics, gain) in enumerate(trials):
        there = metrics | {"accuracy_drop": 9 - metrics["accuracy"]}
        gain += math.sin(number)  # so that no hope is just another's end, but for rounding
        verdicts = [each.judge(number, 9, 1, there) for each in rungs.values()]
        assert verdicts[0] == verdicts[1]
        for each in rungs.values():
            each.ended(
                number, there | {"accuracy": there["accuracy"] + gain, "accuracy_drop": there["accuracy_drop"] - gain}
            )


def with_trained(gains, **rungs):
    """Rungs that trials from 60 % on have left for their end, the first the best in everything."""
    rungs = Rungs(RungsConfig(first=1), OBJECTIVES, **rungs)
    for number, gain in enumerate(gains):
        metrics = {"accuracy": 60.0 - number, "flops": 10.0 + number}
        rungs.judge(number, 9, 1, metrics)
        rungs.ended(number, metrics | {"accuracy": metrics["accuracy"] + gain})
    return rungs


def test_dominated_trial_goes_on_where_rungs_tell_little_of_the_end():
    behind = {"accuracy": 56.0, "flops": 13.5}
    assert not with_trained([20.0] * 6).judge(6, 9, 1, behind).goes_on
    assert with_trained([20.0, 5.0, 39.0, 2.0, 35.0, 6.0]).judge(6, 9, 1, behind).goes_on


def test_trials_of_different_length_are_not_compared():
    rungs, behind = with_trained([1.0] * 6), {"accuracy": 50.0, "flops": 20.0}
    assert not rungs.judge(6, 9, 1, behind).goes_on
    assert rungs.judge(7, 27, 1, behind).goes_on


def test_trial_that_cannot_hope_for_its_bound_stops_whatever_its_rank():
    cheapest = {"accuracy": 40.0, "flops": 1.0}
    assert with_trained([20.0] * 6).judge(6, 9, 1, cheapest).goes_on
    verdict = with_trained([20.0] * 6, lowest_accuracy=76.0).judge(6, 9, 1, cheapest)
    assert (verdict.goes_on, verdict.better, verdict.hopeless) == (False, 0, True)
    assert with_trained([20.0] * 6, lowest_accuracy=59.0).judge(6, 9, 1, cheapest).goes_on


@pytest.mark.parametrize(
    ("first", "factor", "total", "expected"),
    [(2, 3, 4, []), (2, 3, 6, [2]), (2, 3, 18, [2, 6]), (1, 2, 9, [1, 2, 4]), (1, 3, 0, []), (5, 2, 9, [])],
)
def test_rungs_leave_a_factor_of_epochs_to_save(first, factor, total, expected):
    assert RungsConfig(first=first, factor=factor).epochs(total) == expected


def test_dominated_trials_stop_and_are_told_pruned(tmp_path):
    run(session := open_session(grid_space(), tmp_path))

    records = read_records(session.store)
    states = Counter(record.state for record in records)
    assert states["pruned"] > 5 and states["complete"] > 5 and len(records) == 30
    for record in records:
        if record.state == "pruned":
            assert "stopped at epoch" in record.reason and not record.pareto
            assert record.accuracy is not None and record.flops is not None
    trained = sum(_epochs(session, record) for record in records)
    assert trained < 0.75 * 9 * 30


def test_front_is_the_one_of_a_sweep_that_stops_nobody(tmp_path):
    """On curves that do not cross, early stopping costs no member of the front."""
    run(stopping := open_session(grid_space(), tmp_path / "stopping"))
    run(patient := open_session(grid_space(search={"rungs": None}), tmp_path / "patient"))

    def front(session):
        return {(r.method, str(r.hyperparameters)) for r in session.records if r.pareto}

    assert front(stopping) == front(patient)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_killed_drivers_decide_as_one_that_lived(tmp_path_factory, data):
    space = grid_space(epochs=3, constraints={"accuracy_drop": 13.0})
    run(lived := open_session(space, tmp_path_factory.mktemp("lived")), trials=14)
    folder = tmp_path_factory.mktemp("killed")
    for steps in data.draw(st.lists(st.integers(0, 25), max_size=4), label="steps before each death"):
        session, left = open_session(space, folder), steps
        while left > 0 and len(session.records) < 14 and (spec := session.next_trial()):
            for _ in work(session, spec):
                left -= 1
                if left <= 0:
                    break
    session = open_session(space, folder)
    run(session, trials=14 - len(session.records))

    assert [fate[2] for fate in fates(lived)] == 9 * ["complete"] + 5 * ["pruned"]
    assert fates(session) == fates(lived)


@pytest.mark.parametrize("workers", [2, 5])
def test_trials_side_by_side_are_each_judged_once_per_rung(tmp_path, workers):
    session = open_session(grid_space(), tmp_path)
    running = []
    while True:
        while len(running) < workers and (spec := session.next_trial()):
            running.append(work(session, spec))
        if not running:
            break
        running = [trial for trial in running if next(trial, None) is not None]

    records = read_records(session.store)
    assert len(records) == 30 and {r.state for r in records} == {"complete", "pruned"}
    for record in records:
        rungs = [rung for number, rung in _judged(session) if number == record.number]
        assert rungs == [rung for rung in (1, 3) if rung <= _epochs(session, record)]


def test_reports_that_a_lost_worker_swallowed_are_made_good(tmp_path):
    """A worker dies after saving an epoch and before reporting it: the next goes on behind it, and is not heard."""
    session = open_session(grid_space(), tmp_path)
    run(session, trials=6)
    while spec := session.next_trial():
        trial = work(session, spec)
        while next(trial) != "epoch saved":
            pass
        for _ in work(session, spec):
            pass
        assert (spec.number, 1) in _judged(session)

    stopped = [record for record in read_records(session.store) if record.state == "pruned"]
    assert {_epochs(session, record) for record in stopped} == {1}


def test_infeasible_trial_never_trains_and_is_told_with_its_violation(tmp_path):
    session = open_session(make_space(trials=2, constraints={"flops": 5000.0}), tmp_path)
    spec = session.next_trial()
    metrics = measured(spec) | {"flops": 6000}
    folder = session.store.trial(spec.number)
    folder.mkdir(parents=True)
    write_result(folder, pruned_result("flops is 6000, above its bound of 5000", metrics))
    assert not session.stops(spec.number, Report("measure", 1, 1, metrics))
    session.trial_ended(spec.number, worker_died=False)

    record = read_records(session.store)[0]
    assert (record.state, record.flops, record.pareto) == ("pruned", 6000, False)
    frozen = session._study._study.trials[0]
    assert frozen.state.name == "PRUNED" and frozen.constraints == {"flops": 1000.0}


def _epochs(session, record):
    epochs = read_result(session.store.trial(record.number))["epochs"]
    return len(epochs) if record.state == "pruned" else 9


def _judged(session):
    return [(record.number, record.rung) for record in session._study.rung_records()]


def fates(session):
    """What was decided of each trial."""
    records = read_records(session.store)
    assert [record.number for record in records] == list(range(len(records)))
    return [(r.method, r.hyperparameters, r.state, r.reason, r.accuracy, r.seconds) for r in records]
