from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Event

import made_up_sweep as made_up
import pytest

from lrsearch.record import Report, TrialRecord
from lrsearch.tracking import Tracker
from lrsearch.tracking.sweep_mirror import SweepMirror

MADE_UP = Path(made_up.__file__)


@pytest.fixture(autouse=True)
def no_networks(monkeypatch):
    """Trials that are made up leave none to be logged."""
    monkeypatch.setattr(Tracker, "_log_front", lambda *_: None)


class Runs:
    """What MLflow holds of a sweep, read by a client of its own."""

    def __init__(self, storage: Path, name: str = "digits") -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
        experiment = self.client.get_experiment_by_name(name)
        runs = self.client.search_runs([experiment.experiment_id], max_results=1000)
        self.count = len(runs)
        self.by_key = {run.data.tags["lrsearch.key"]: run for run in runs}
        self.parent = self.by_key[name]
        self.children = {int(k.split("/")[1]): run for k, run in self.by_key.items() if "/" in k}

    def history(self, run, key):
        return sorted((m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, key))

    def artifacts(self, run, folder=None):
        return sorted(f.path for f in self.client.list_artifacts(run.info.run_id, folder))

    def assert_whole(self, trials: int) -> None:
        """Every trial exactly once, over, with each of its epochs exactly once."""
        assert self.count == trials + 1
        assert sorted(self.children) == list(range(trials))
        assert self.parent.info.status == "FINISHED"
        for number, run in self.children.items():
            expected = made_up.finished_trial(number)
            assert run.info.status == ("FAILED" if expected.state == "failed" else "FINISHED")
            assert run.data.tags["mlflow.parentRunId"] == self.parent.info.run_id
            for key in ("loss", "accuracy", "lr"):
                assert self.history(run, f"retrain/{key}") == [
                    (int(e["epoch"]), pytest.approx(e[key])) for e in made_up.history(number)
                ]
            if expected.state == "complete":
                assert self.artifacts(run) == ["recipe.json", "trial.html"]
                assert run.data.metrics["speedup"] == pytest.approx(expected.speedup)
        steps = [step for step, _ in self.history(self.parent, "hypervolume")]
        assert steps == sorted(set(steps)) and steps[-1] == trials
        assert self.artifacts(self.parent, "front") == ["front/front.csv", "front/pareto.html", "front/pareto.png"]

    def assert_front(self, records: list[TrialRecord]) -> None:
        tags = {n: run.data.tags["lrsearch.pareto"] for n, run in self.children.items()}
        assert tags == {r.number: "true" if r.pareto else "false" for r in records}


@pytest.fixture
def spy(monkeypatch):
    """Counts what is asked of MLflow."""
    from mlflow import MlflowClient

    calls: Counter[str] = Counter()

    def count(name):
        original = getattr(MlflowClient, name)

        def counted(self, *args, **kwargs):
            calls[name] += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, counted)

    for name in ("create_run", "log_batch", "log_artifact", "set_terminated", "update_run", "search_runs"):
        count(name)
    return calls


def break_mlflow(monkeypatch, method, times, after=False):
    """Let a method of the client fail some times, before or after it did its work."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    original = getattr(MlflowClient, method)
    left = [times]

    def broken(self, *args, **kwargs):
        left[0] -= 1
        if left[0] >= 0:
            if after:
                original(self, *args, **kwargs)
            raise MlflowException("the server is away")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, method, broken)


def run_sweep(storage, trials, outcome="finished"):
    tracker, info = Tracker(None, storage), made_up.sweep_info(storage, trials)
    made_up.begin(tracker, info)
    records = made_up.play(tracker, info, range(trials))
    tracker.sweep_stopped(outcome)
    return records


def resume_sweep(storage, trials, outcome="finished"):
    info = replace(made_up.sweep_info(storage, trials), finished=trials)
    tracker = Tracker(None, storage)
    made_up.begin(tracker, info)
    records = made_up.replay(tracker, info, range(trials))
    tracker.sweep_stopped(outcome)
    return records


def test_a_sweep_is_one_run_and_one_run_per_trial(drawn_storage):
    records = run_sweep(drawn_storage, 24)
    runs = Runs(drawn_storage)
    runs.assert_whole(24)
    runs.assert_front(records)
    assert 1 < sum(r.pareto for r in records) < 20
    hypervolumes = runs.history(runs.parent, "hypervolume")
    assert [step for step, _ in hypervolumes] == list(range(1, 25))
    assert hypervolumes[-1][1] == pytest.approx(made_up.front_of(records))
    assert runs.parent.data.metrics["front_size"] == sum(r.pareto for r in records)
    assert runs.parent.data.metrics["dense/params"] == made_up.DENSE.params
    assert runs.parent.data.params["methods.alds.budget.params"] == "uniform [0.1, 0.8]"
    assert "98.90 %" in runs.parent.data.tags["mlflow.note.content"]
    child = runs.children[7]
    assert child.info.run_name == "7 alds"
    assert child.data.params["method"] == "alds" and "recalibrate" in child.data.params
    assert child.data.metrics["hp.budget.params"] == records[7].hyperparameters["budget"]["params"]
    assert child.data.metrics["measure/speedup"] == 1.5
    assert runs.children[10].data.tags["lrsearch.reason"] == "loss is not finite in epoch 2"
    assert {n: run.data.tags["lrsearch.state"] for n, run in runs.children.items()} == {
        r.number: r.state for r in records
    }


def test_resuming_a_finished_sweep_looks_up_once_and_rewrites_no_trial(storage, spy, monkeypatch):
    run_sweep(storage, 12)
    spy.clear()
    monkeypatch.setattr("lrsearch.tracking.tracker._PACE", 30.0)  # all is told before any of it is written
    records = resume_sweep(storage, 12)
    assert spy["search_runs"] == 1
    assert spy["create_run"] == spy["log_artifact"] == spy["log_batch"] == 0
    assert spy["update_run"] <= 1 and spy["set_terminated"] <= 1, "the sweep's own status at most"
    Runs(storage).assert_whole(12)
    Runs(storage).assert_front(records)


@pytest.mark.parametrize("moment", ["begun", "0", "4"])
def test_a_killed_driver_leaves_nothing_that_resuming_does_not_mend(storage, moment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    driver = subprocess.Popen(
        [sys.executable, str(MADE_UP), str(storage), "200", "0.1"], stdout=subprocess.PIPE, text=True, env=environment
    )
    for line in driver.stdout:
        if line.strip() == moment:
            break
    time.sleep({"begun": 0.0, "0": 0.6, "4": 0.3}[moment])
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    records = resume_sweep(storage, 8)
    Runs(storage).assert_whole(8)
    Runs(storage).assert_front(records)


def test_an_interrupted_sweep_stays_open_below_a_killed_run_until_it_goes_on(storage):
    tracker, info = Tracker(None, storage), made_up.sweep_info(storage, 3)
    made_up.begin(tracker, info)
    made_up.play(tracker, info, [0])
    tracker.trial_started(1, *made_up.hyperparameters(1))
    tracker.trial_reported(1, Report("retrain", 1, 4, {"loss": 0.5}))
    tracker.sweep_stopped("interrupted")
    runs = Runs(storage)
    assert runs.parent.info.status == "KILLED"
    assert {n: run.info.status for n, run in runs.children.items()} == {0: "FINISHED", 1: "RUNNING"}

    tracker = Tracker(None, storage)
    made_up.begin(tracker, info)
    made_up.replay(tracker, info, [0])
    tracker.trial_started(1, *made_up.hyperparameters(1))
    deadline = time.monotonic() + 20
    while Runs(storage).parent.info.status != "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert Runs(storage).parent.info.status == "RUNNING"
    assert Runs(storage).children[0].info.status == "FINISHED"
    tracker.sweep_stopped("interrupted")
    assert Runs(storage).count == 3


def test_epochs_that_mlflow_missed_are_filled_in(storage):
    tracker, info = Tracker(None, storage), made_up.sweep_info(storage, 1)
    made_up.begin(tracker, info)
    tracker.trial_started(0, *made_up.hyperparameters(0))
    for epoch in (made_up.history(0)[0], made_up.history(0)[2]):
        metrics = {k: v for k, v in epoch.items() if k != "epoch"}
        tracker.trial_reported(0, Report("retrain", int(epoch["epoch"]), 4, metrics))
    tracker.sweep_stopped("interrupted")
    resume_sweep(storage, 1)
    Runs(storage).assert_whole(1)


def test_a_long_training_fits_into_mlflows_batches(storage):
    tracker, info = Tracker(None, storage), made_up.sweep_info(storage, 1)
    made_up.begin(tracker, info)
    epochs = [{"epoch": e, "loss": 1 / e, "accuracy": 90.0, "lr": 0.1, "seconds": 1.0} for e in range(1, 401)]
    tracker.trial_finished(made_up.finished_trial(0), epochs, info.folder)
    tracker.sweep_stopped("finished")
    runs = Runs(storage)
    assert len(runs.history(runs.children[0], "retrain/loss")) == 400
    assert runs.children[0].info.status == "FINISHED"


def test_what_is_told_is_not_kept_waiting_and_is_sent_together(storage, monkeypatch, spy):
    from mlflow import MlflowClient

    monkeypatch.setattr("lrsearch.tracking.tracker._PACE", 0.3)
    all_told, in_time = Event(), []
    original = MlflowClient.create_run

    def wait_for_all(*arguments, **options):
        in_time.append(all_told.wait(20))
        return original(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "create_run", wait_for_all)
    tracker, info = Tracker(None, storage), made_up.sweep_info(storage, 1)
    made_up.begin(tracker, info)
    tracker.trial_started(0, *made_up.hyperparameters(0))
    for step in range(1, 101):
        tracker.trial_reported(0, Report("retrain", step, 100, {"loss": 1 / step}))
    all_told.set()
    tracker.sweep_stopped("interrupted")
    assert in_time == [True, True]
    assert spy["log_batch"] <= 4
    runs = Runs(storage)
    assert len(runs.history(runs.children[0], "retrain/loss")) == 100


def test_pages_show_a_trial_that_did_not_join_the_front(storage):
    mirror = SweepMirror(made_up.sweep_info(storage, 1), None)
    mirror.dense_finished(made_up.DENSE)
    assert mirror.next_drawing() is None
    mirror.trial_finished(made_up.finished_trial(0), [], storage)
    assert mirror.next_drawing() is not None


def test_a_record_that_changes_after_it_was_told_does_not_change_what_is_shown(storage):
    tracker, info = Tracker(None, storage), made_up.sweep_info(storage, 1)
    made_up.begin(tracker, info)
    record = made_up.finished_trial(0)
    record.pareto = True
    tracker.trial_finished(record, [], info.folder)
    tracker.front_changed([record], 1.0)
    record.pareto, record.state = False, "failed"
    tracker.sweep_stopped("finished")
    child = Runs(storage).children[0]
    assert (child.data.tags["lrsearch.pareto"], child.info.status) == ("true", "FINISHED")


@pytest.mark.parametrize("method", ["log_batch", "create_run", "set_terminated", "get_experiment_by_name"])
@pytest.mark.parametrize("after", [False, True], ids=["not done", "answer lost"])
def test_a_failure_that_passes_is_tried_again(storage, monkeypatch, caplog, method, after):
    break_mlflow(monkeypatch, method, times=3, after=after)
    records = run_sweep(storage, 4)
    Runs(storage).assert_whole(4)
    Runs(storage).assert_front(records)
    assert not caplog.records


def test_an_mlflow_that_stays_away_costs_one_warning_and_is_filled_in_later(storage, monkeypatch, caplog):
    with monkeypatch.context() as broken:
        break_mlflow(broken, "log_batch", times=10**6)
        records = run_sweep(storage, 4, outcome="interrupted")
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "the server is away" in warnings[0] and "resuming" in warnings[0]
    resume_sweep(storage, 4)
    Runs(storage).assert_whole(4)
    Runs(storage).assert_front(records)


def test_a_run_that_someone_deletes_holds_up_no_other(storage, caplog):
    tracker, info = Tracker(None, storage), made_up.sweep_info(storage, 2)
    made_up.begin(tracker, info)
    tracker.trial_started(0, *made_up.hyperparameters(0))
    tracker.trial_started(1, *made_up.hyperparameters(1))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if len(Runs(storage).children) == 2:
                break
        except (AttributeError, KeyError):
            time.sleep(0.05)
    Runs(storage).client.delete_run(Runs(storage).children[0].info.run_id)
    made_up.replay(tracker, info, [0, 1])
    tracker.sweep_stopped("finished")
    runs = Runs(storage)
    assert list(runs.children) == [1] and runs.children[1].info.status == "FINISHED"
    assert runs.parent.info.status == "FINISHED"
    assert any("digits/0" in record.getMessage() for record in caplog.records)
    resume_sweep(storage, 2)
    Runs(storage).assert_whole(2)


def test_only_tags_that_change_are_written(storage, spy):
    tracker, info = Tracker(None, storage), made_up.sweep_info(storage, 12)
    made_up.begin(tracker, info)
    records = made_up.play(tracker, info, range(12))
    tracker.sweep_stopped("interrupted")
    spy.clear()
    tracker = Tracker(None, storage)
    tracker.sweep_started(info)
    front = [r for r in records if r.pareto]
    front[0].pareto = False
    for record in records:
        tracker.trial_finished(record, made_up.history(record.number), info.folder / "trials" / str(record.number))
    tracker.front_changed(front[1:], 0.1)
    tracker.sweep_stopped("interrupted")
    assert spy["log_batch"] <= 2, "one for the trial that left the front, one for the sweep"
    assert Runs(storage).children[front[0].number].data.tags["lrsearch.pareto"] == "false"


def test_a_sweep_of_the_same_name_from_elsewhere_is_pointed_out(storage, tmp_path, caplog):
    run_sweep(storage, 1)
    tracker, elsewhere = Tracker(None, storage), made_up.sweep_info(tmp_path / "elsewhere", 1)
    tracker.sweep_started(elsewhere)
    tracker.sweep_stopped("finished")
    assert any(str(elsewhere.folder) in record.getMessage() for record in caplog.records)


def test_two_sweeps_share_a_store(storage):
    run_sweep(storage, 1)
    tracker, other = Tracker(None, storage), made_up.sweep_info(storage, 1, name="other")
    made_up.begin(tracker, other)
    made_up.play(tracker, other, [0])
    tracker.sweep_stopped("finished")
    assert Runs(storage).count == 2 and Runs(storage, "other").count == 2
