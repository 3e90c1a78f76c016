"""Every verb speaks JSON to programs: nothing else on standard output, whatever the verb is."""

import json
from typing import get_args

import pytest
import typer

from lrsearch.cli.app import app
from lrsearch.cli.networks import ExportFormat
from lrsearch.observer import SweepInfo
from tests.sweep.simulator import make_space, open_session, simulate
from tests.test_cli import lrsearch

SPACE = "model: {name: digits_mlp}\ndata: {name: digits}\nmethods: {alds: {}}\n"
NETWORK = ("--model", "{name: digits_mlp, width: 16}", "--budget", "params=0.5")
VERBS = typer.main.get_command(app).commands
RUNS = {
    "search": ["space.yaml", "--dry-run"],
    "resume": ["sim"],
    "confirm": ["sim"],
    "submit": ["space.yaml", "--address", "http://head:8265", "--storage", "/shared"],
    "status": ["sim"],
    "front": ["sim"],
    "table": ["sim"],
    "report": ["sim"],
    "ui": ["sim"],
    "compress": [*NETWORK, "--out", "o"],
    "apply": ["small", "--out", "o"],
    "measure": ["small"],
    "evaluate": ["small", "--data", "digits"],
    "export": ["small", "--out", "plain"],
    "doctor": [],
    "schema": [],
}
HOW = {"export": ["--json"], "schema": []}
"""Where it is said otherwise: what ``--format`` of ``export`` says is the network's, and a schema is JSON anyway."""
KEYS = {"report": {"wrote", "answers"}, "export": {"wrote", "format", "network", "difference"}, "ui": {"ui", "front"}}


class Job:
    """A job on a cluster that is not there."""

    def __init__(self, address, arguments, folder=None):
        self.id = "lrsearch-1"

    def output(self):
        yield "said by the sweep\n"

    def succeeded(self):
        return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished sweep, a space and a compressed network."""
    folder = tmp_path_factory.mktemp("json")
    (folder / "space.yaml").write_text(SPACE)
    session = open_session(make_space(trials=4), folder / "lrsearch_runs")
    while spec := session.next_trial():
        simulate(spec, session.store.trial(spec.number))
        session.trial_ended(spec.number, worker_died=False)
    lrsearch("compress", *NETWORK, "--out", "small", cwd=folder)
    return folder


@pytest.fixture
def without_ray(monkeypatch):
    """Verbs that start Ray, ask a cluster or serve do what they do around it."""

    def watched(space, store, *arguments):
        observers = next(each for each in arguments if isinstance(each, tuple))
        observers[-1].sweep_started(SweepInfo("sim", store.folder, 4, 0, 1, {}, {}))

    monkeypatch.setattr("lrsearch.sweeps._tracker", lambda *_: None)
    monkeypatch.setattr("lrsearch.sweep.run.run_sweep", watched)
    monkeypatch.setattr("lrsearch.sweep.confirm.confirm_front", watched)
    monkeypatch.setattr("lrsearch.sweep.jobs.Job", Job)
    monkeypatch.setattr("lrsearch.sweep.jobs.answer", lambda *_: "[]\n")
    monkeypatch.setattr("lrsearch.doctor.examine", lambda *_: [])
    monkeypatch.setattr("lrsearch.tracking.ui_command", lambda *_: ["mlflow"])
    monkeypatch.setattr("lrsearch.tracking.front_address", lambda *_: "http://127.0.0.1:5000/#/experiments/1")
    monkeypatch.setattr("os.execvp", lambda *_: None)


def test_every_verb_is_tested_here():
    assert set(RUNS) == set(VERBS)
    assert "json" not in get_args(ExportFormat)


@pytest.mark.parametrize("verb", RUNS)
def test_standard_output_is_json_alone(verb, folder, without_ray):
    done = lrsearch(verb, *RUNS[verb], *HOW.get(verb, ["--format", "json"]), cwd=folder)

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert verb not in KEYS or KEYS[verb] <= set(told)


def test_models_and_pictures_too(folder, monkeypatch):
    monkeypatch.setattr("lrsearch.results.log_models", lambda *_: {3: "models:/m-3"})
    done = lrsearch("export", "sim", "--format", "mlflow", "--register", "m", "--json", cwd=folder)
    assert json.loads(done.stdout) == {"models": {"3": "models:/m-3"}, "registered": "models:/m@knee"}

    for verb in ("front", "table"):
        done = lrsearch(verb, "sim", "--plot", f"{verb}.svg", "--format", "json", cwd=folder)
        assert json.loads(done.stdout) == {"wrote": f"{verb}.svg"}
