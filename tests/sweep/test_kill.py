"""Killing is normal: whatever dies, and whenever, a resumed sweep has lost and repeated nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import optuna
import pytest
from mlflow.entities import ViewType

from tests.sweep.doomed_driver import MOMENTS

pytestmark = pytest.mark.slow

SPACE = """
model: {name: digits_resnet, width: 8}
data: {name: digits}
train: {epochs: 3, lr: 0.1}
retrain: {epochs: 4}
methods:
  alds: {budget: {params: {uniform: [0.2, 0.8]}}}
  tucker: {alpha: {loguniform: [1.5, 6]}}
search: {trials: 6}
measure: {seconds: 0.2}
"""
TRIALS, EPOCHS = 6, 4


class Sweep:
    """A small real sweep in a folder, driven through the command line."""

    def __init__(self, folder):
        self.storage = folder / "runs"
        self.space = folder / "space.yaml"
        self.space.write_text(SPACE)
        self.folder = self.storage / "s"

    def start(self, *command):
        return subprocess.Popen(
            [sys.executable, "-m", "lrsearch.cli", *command, "--storage", str(self.storage)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def search(self):
        return self.start("search", str(self.space), "--name", "s")

    def run_to_end(self, *command):
        driver = self.start(*command)
        output, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, output
        return output

    def wait_for(self, pattern, driver):
        deadline = time.monotonic() + 120
        while not list(self.folder.glob(pattern)):
            assert driver.poll() is None, driver.stdout.read()
            assert time.monotonic() < deadline, f"{pattern} never appeared"
            time.sleep(0.02)
        return sorted(self.folder.glob(pattern))[0]

    def results(self):
        return {p.parent.name: p.stat().st_mtime_ns for p in self.folder.glob("trials/*/result.json")}

    def histories(self):
        """Epochs that unfinished trials have behind them, as their checkpoints say."""
        from lrsearch.training import read_history

        return {
            path.parent.name: read_history(path)
            for path in self.folder.glob("trials/*/checkpoint.pt")
            if not (path.parent / "result.json").exists()
        }

    def check_end(self, results_before, histories_before):
        """Everything the promise says about a sweep that was killed and resumed."""
        study = optuna.load_study(
            study_name="s",
            storage=optuna.storages.JournalStorage(
                optuna.storages.journal.JournalFileBackend(str(self.folder / "study.journal"))
            ),
        )
        asked = [t for t in study.trials if t.state != optuna.trial.TrialState.WAITING]
        assert [t.number for t in asked] == list(range(TRIALS))
        assert {t.state.name for t in asked} == {"COMPLETE"}
        after = self.results()
        assert sorted(after, key=int) == [str(n) for n in range(TRIALS)]
        for number, written in results_before.items():
            assert after[number] == written, f"finished trial {number} was run again"
        for number in after:
            epochs = json.loads((self.folder / "trials" / number / "result.json").read_text())["epochs"]
            assert [epoch["epoch"] for epoch in epochs] == list(range(1, EPOCHS + 1))
            for done, kept in zip(histories_before.get(number, []), epochs, strict=False):
                assert (done.epoch, done.seconds) == (kept["epoch"], kept["seconds"]), "an epoch was repeated"
        self.check_mlflow()

    def check_mlflow(self):
        client = mlflow.MlflowClient(f"sqlite:///{self.storage}/mlflow.db")
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = client.search_runs(experiments, run_view_type=ViewType.ALL, max_results=1000)
        assert len(runs) == TRIALS + 1
        assert {run.info.status for run in runs} == {"FINISHED"}
        for run in runs:
            if "mlflow.parentRunId" in run.data.tags:
                history = client.get_metric_history(run.info.run_id, "loss")
                assert sorted(m.step for m in history) == list(range(1, EPOCHS + 1))


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


@pytest.mark.parametrize("moment", MOMENTS)
def test_driver_killed_at_an_exact_moment(sweep, moment):
    script = Path(__file__).parent / "doomed_driver.py"
    doomed = subprocess.run(
        [sys.executable, str(script), str(sweep.space), "s", str(sweep.storage), moment],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert doomed.returncode == -signal.SIGKILL, doomed.stderr

    time.sleep(2)  # workers notice that their driver is gone
    results, histories = sweep.results(), sweep.histories()
    sweep.run_to_end("resume", "s")

    sweep.check_end(results, histories)


def test_worker_killed_while_its_trial_trains(sweep):
    driver = sweep.search()
    sweep.wait_for("trials/*/checkpoint.pt", driver)
    number, worker = next(
        (lock.parent.name, int(lock.read_text())) for lock in sweep.folder.glob("trials/*/lock") if lock.read_text()
    )
    os.kill(worker, signal.SIGKILL)
    histories = {n: h for n, h in sweep.histories().items() if n == number}

    output, _ = driver.communicate(timeout=300)

    assert driver.returncode == 0, output
    sweep.check_end({}, histories)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_driver_stopped_from_outside(sweep, stop):
    driver = sweep.search()
    sweep.wait_for("trials/*/result.json", driver)
    sweep.wait_for("trials/*/checkpoint.pt", driver)
    driver.send_signal(stop)
    output, _ = driver.communicate(timeout=120)
    if stop != signal.SIGKILL:
        assert driver.returncode == 130, output
        assert "lrsearch resume s" in output
    time.sleep(2)
    results, histories = sweep.results(), sweep.histories()

    sweep.run_to_end("resume", "s")

    sweep.check_end(results, histories)


def test_time_budget_puts_the_sweep_aside_and_the_same_command_continues_it(sweep):
    aside = sweep.start("search", str(sweep.space), "--name", "s", "--time-budget", "12s")
    output, _ = aside.communicate(timeout=120)
    assert aside.returncode in (0, 130), output
    results, histories = sweep.results(), sweep.histories()

    sweep.run_to_end("search", str(sweep.space), "--name", "s")

    sweep.check_end(results, histories)
