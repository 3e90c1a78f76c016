"""A real sweep over a user's own model and data, named by import path from the folder the command is typed in.

One of its two methods diverges in its trials, and one trial of the other kills every process that takes it up.
"""

import json
import re
import subprocess
import sys

import pytest

from lrsearch.results import load_front

pytestmark = pytest.mark.slow

MODULE = """
import os
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import TensorDataset
from lrsearch.data import Splits


def network(hidden):
    layers = [nn.Conv2d(1, hidden, 3), nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, 8, 2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(8, 3))
    model.register_forward_pre_hook(die_in_trial_2)
    return model


def die_in_trial_2(*_):
    lock = Path("lrsearch_runs/space/trials/2/lock")
    if lock.exists() and lock.read_text() == str(os.getpid()):
        with Path("deaths").open("a") as deaths:
            print("died", file=deaths)
        os.kill(os.getpid(), 9)


def blobs(noise):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 1, 4, 4, generator=generator)
    classes = torch.arange(600) % 3
    images = centres[classes] + noise * torch.randn(600, 1, 4, 4, generator=generator)
    parts = [TensorDataset(images[a:b], classes[a:b]) for a, b in ((0, 300), (300, 400), (400, 500), (500, 600))]
    return Splits("blobs", *parts, classes=3)
"""

SPACE = """
model: {name: "mine:network", hidden: 48}
data: {name: "mine:blobs", noise: 0.3}
train: {epochs: 3}
retrain: {epochs: 1}
methods:
  svd: {budget: {params: {uniform: [0.3, 0.7]}}}
  rene: {budget: {params: 0.5}, decomposition: cp, objective: paper, lr: 1.0e+30, steps: 2, warm_up: 2}
search: {trials: 4}
measure: {seconds: 0.1}
resources: {max_concurrent: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(MODULE)
    (folder / "space.yaml").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def lrsearch(folder):
    def run(*arguments):
        command = [sys.executable, "-m", "lrsearch.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="module")
def rows(lrsearch):
    """What the sweep has found."""
    return json.loads(lrsearch("search", "space.yaml", "--format", "json"))


def test_own_model_and_data_are_found_by_driver_and_workers(rows, lrsearch):
    dense, *front = rows
    assert json.loads(lrsearch("front", "space", "--format", "json")) == rows
    assert dense["test_accuracy"] > 95
    assert front and all(row["test_accuracy"] is not None and row["cr_p"] >= 30 for row in front)
    trial = f"lrsearch_runs/space/trials/{front[0]['number']}"
    evaluated = json.loads(
        lrsearch("evaluate", trial, "--data", "{name: 'mine:blobs', noise: 0.3}", "--format", "json")
    )
    assert evaluated["accuracy"] == pytest.approx(front[0]["test_accuracy"])


@pytest.mark.usefixtures("rows")
def test_trials_that_diverge_fail_naming_layer_and_candidate_and_the_others_finish(folder):
    trials = load_front("space", str(folder / "lrsearch_runs")).trials

    assert len(trials) == 4
    del trials[2]  # see below
    assert {(trial.method, trial.state) for trial in trials} == {("rene", "failed"), ("svd", "complete")}
    words = r"the rank search diverged: its loss is not finite at layer '\S+', candidate of rank \d+"
    assert all(re.fullmatch(words, trial.reason) for trial in trials if trial.method == "rene")


@pytest.mark.usefixtures("rows")
def test_trial_that_kills_its_workers_fails_when_its_lives_are_spent(folder):
    assert load_front("space", str(folder / "lrsearch_runs")).trials[2].reason == "its worker process died 3 times"
    assert (folder / "deaths").read_text().split() == ["died"] * 3
