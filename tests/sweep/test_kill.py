"""Killing is normal: whatever dies, and whenever, a resumed sweep has lost and repeated nothing."""

import fcntl
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

from lrsearch.training import read_history
from tests.sweep.doomed_driver import MOMENTS, WRITES
from tests.sweep.simulator import grid_space, open_session, run
from tests.sweep.test_rungs import fates

pytestmark = pytest.mark.slow

SPACE = """
model: {name: digits_resnet, width: 8}
data: {name: digits}
train: {epochs: 3, lr: 0.1}
retrain: {epochs: 4}
objectives: {accuracy: max, params: min}
methods:
  alds: {budget: {params: {uniform: [0.2, 0.8]}}}
  tucker: {alpha: {loguniform: [1.5, 6]}}
measure: {seconds: 0.1}
"""
RUNGS = (1, 2)


class Sweep:
    """A small real sweep in a folder, driven through the command line; each trial at once has a worker to start."""

    def __init__(self, folder, trials=6, at_once=None):
        self.storage = folder / "runs"
        self.space = folder / "space.yaml"
        search = f"search: {{trials: {trials}, rungs: {{first: 1, factor: 2}}}}\n"
        self.space.write_text(f"{SPACE}{search}resources: {{max_concurrent: {json.dumps(at_once)}}}\n")
        self.trials = trials
        self.folder = self.storage / "s"
        self.finished, self.epochs = {}, {}

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

    def wait_for_new(self, pattern, driver):
        """Wait until the driver's workers have made another file of that pattern, and return it."""
        known, deadline = set(self.folder.glob(pattern)), time.monotonic() + 300
        while not (new := set(self.folder.glob(pattern)) - known):
            assert driver.poll() is None, driver.stdout.read()
            assert time.monotonic() < deadline, f"{pattern} never appeared"
            time.sleep(0.02)
        return new.pop()

    def results(self):
        return {p.parent.name: p.stat().st_mtime_ns for p in self.folder.glob("trials/*/result.json")}

    def histories(self):
        """Epochs that unfinished trials have behind them, as their checkpoints say."""
        return {
            path.parent.name: read_history(path)
            for path in self.folder.glob("trials/*/checkpoint.pt")
            if not (path.parent / "result.json").exists()
        }

    def take_stock(self):
        """Note what is finished and how far the rest has come, once orphaned workers have noticed and gone."""
        for path in self.folder.glob("trials/*/lock"):
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
        self.finished |= {n: self.finished.get(n, written) for n, written in self.results().items()}
        for number, epochs in self.histories().items():
            known = self.epochs.get(number, [])
            assert epochs[: len(known)] == known, f"trial {number} repeated an epoch"
            self.epochs[number] = epochs

    def check_damaged_checkpoint_is_refused(self):
        """Never silently: a checkpoint that cannot be read stops the sweep with one sentence, until it is mended."""
        checkpoints = self.folder.glob("trials/*/checkpoint.pt")
        checkpoint = next(path for path in checkpoints if not (path.parent / "result.json").exists())
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content[: len(content) // 2])
        driver = self.start("resume", "s")
        output, _ = driver.communicate(timeout=120)
        assert driver.returncode == 1, output
        assert output.splitlines()[-1].startswith(f"error: checkpoint {checkpoint}"), output
        checkpoint.write_bytes(content)

    def check_end(self):
        """Everything the promise says about a sweep that was killed and resumed."""
        asked = [t for t in self.study().trials if t.state != optuna.trial.TrialState.WAITING]
        assert [t.number for t in asked] == list(range(len(asked)))
        assert sum("continues" not in t.user_attrs for t in asked) == self.trials
        results = self.results()
        assert sorted(results, key=int) == [str(trial.number) for trial in asked]
        for number, written in self.finished.items():
            assert results[number] == written, f"finished trial {number} was run again"
        for trial in asked:
            self.check_trial(trial)
        self.check_mlflow()
        return asked

    def study(self):
        journal = optuna.storages.journal.JournalFileBackend(str(self.folder / "study.journal"))
        return optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(journal))

    def mlflow(self):
        return mlflow.MlflowClient(f"sqlite:///{self.storage}/mlflow.db")

    def check_trial(self, trial):
        epochs = self.epochs_of(trial.number)
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, len(epochs) + 1))
        known = [_what_happened(epoch.row()) for epoch in self.epochs.get(str(trial.number), [])]
        assert epochs[: len(known)] == known, f"trial {trial.number} repeated an epoch"
        verdicts = {name: content["verdict"] for name, content in trial.user_attrs.items() if name.startswith("rung:")}
        goes_on = [verdict["goes_on"] for verdict in verdicts.values()]
        if "continues" in trial.user_attrs:
            earlier = self.epochs_of(trial.user_attrs["continues"])
            assert epochs[: len(earlier)] == earlier, f"trial {trial.number} was retrained instead of continued"
            assert not verdicts
        else:
            assert sorted(verdicts) == [f"rung:{rung}" for rung in RUNGS if rung <= len(epochs)]
        if trial.state.name == "PRUNED":
            assert goes_on == [True] * (len(goes_on) - 1) + [False] and len(epochs) == RUNGS[len(goes_on) - 1]
        else:
            assert trial.state.name == "COMPLETE" and all(goes_on)
            assert len(epochs) == trial.user_attrs["epochs"]

    def epochs_of(self, number):
        result = json.loads((self.folder / "trials" / str(number) / "result.json").read_text())
        return [_what_happened(epoch) for epoch in result["epochs"]]

    def check_mlflow(self):
        client = self.mlflow()
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = client.search_runs(experiments, run_view_type=ViewType.ALL, max_results=1000)
        assert len(runs) == len(self.results()) + 1
        assert {run.info.status for run in runs} == {"FINISHED"}
        for child in runs:
            if "mlflow.parentRunId" in child.data.tags:
                number = child.data.tags["lrsearch.key"].rsplit("/", 1)[-1]
                history = client.get_metric_history(child.info.run_id, "retrain/loss")
                assert sorted(m.step for m in history) == list(range(1, len(self.epochs_of(number)) + 1))


def _what_happened(epoch):
    """An epoch without the number of all, which grows when a training is taken further, and without empty scores."""
    return {name: value for name, value in epoch.items() if name != "epochs" and value != {}}


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


def test_driver_killed_at_one_exact_moment_after_another(sweep):
    """The last of them while it takes the front further, for more epochs under the same name."""
    script = Path(__file__).parent / "doomed_driver.py"
    for moment in MOMENTS:
        epochs = 6 if moment == "training taken further" else 4
        doomed = subprocess.run(
            [sys.executable, str(script), str(sweep.space), "s", str(sweep.storage), moment, str(epochs)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert doomed.returncode == -signal.SIGKILL, (moment, doomed.stderr)
        sweep.take_stock()

    sweep.run_to_end("resume", "s")

    trials = sweep.check_end()
    assert any("continues" in trial.user_attrs for trial in trials)


@pytest.mark.parametrize("moment", WRITES)
def test_driver_killed_while_it_writes(tmp_path, moment):
    """Simulated, so that the decisions of an uninterrupted sweep are known."""
    script, folder = Path(__file__).parent / "doomed_driver.py", tmp_path / "killed"
    doomed = subprocess.run([sys.executable, str(script), str(folder), moment], capture_output=True, timeout=100)
    assert doomed.returncode == -signal.SIGKILL, doomed.stderr

    run(killed := open_session(grid_space(epochs=3), folder))
    run(lived := open_session(grid_space(epochs=3), tmp_path / "lived"))

    assert fates(killed) == fates(lived)


def test_sweep_put_aside_stopped_and_robbed_of_a_worker(sweep):
    aside = sweep.start("search", str(sweep.space), "--name", "s", "--time-budget", "1s")
    output, _ = aside.communicate(timeout=120)
    assert aside.returncode == 130, output
    sweep.take_stock()
    driver = sweep.search()
    sweep.wait_for_new("trials/*/checkpoint.pt", driver)
    driver.send_signal(signal.SIGTERM)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130, output
    assert "lrsearch resume s" in output
    sweep.take_stock()
    sweep.check_damaged_checkpoint_is_refused()

    driver = sweep.start("resume", "s")
    checkpoint = sweep.wait_for_new("trials/*/checkpoint.pt", driver)
    os.kill(int((checkpoint.parent / "lock").read_text()), signal.SIGKILL)
    output, _ = driver.communicate(timeout=300)

    assert driver.returncode == 0, output
    sweep.check_end()
