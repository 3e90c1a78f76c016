"""A sweep over a user's own model and data, named by import path from the folder the command is typed in."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

MODULE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from lrsearch.data import Splits


def network(hidden):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 3))


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
methods: {svd: {budget: {params: {uniform: [0.3, 0.7]}}}}
search: {trials: 3}
measure: {seconds: 0.1}
"""


def test_own_model_and_data_are_found_by_driver_and_workers(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "space.yaml").write_text(SPACE)

    def lrsearch(*arguments):
        command = [sys.executable, "-m", "lrsearch.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    dense, *front = rows = json.loads(lrsearch("search", "space.yaml", "--format", "json"))

    assert json.loads(lrsearch("front", "space", "--format", "json")) == rows
    assert dense["test_accuracy"] > 95
    assert front and all(row["test_accuracy"] is not None and row["cr_p"] >= 30 for row in front)
    trial = f"lrsearch_runs/space/trials/{front[0]['number']}"
    evaluated = json.loads(
        lrsearch("evaluate", trial, "--data", "{name: 'mine:blobs', noise: 0.3}", "--format", "json")
    )
    assert evaluated["accuracy"] == pytest.approx(front[0]["test_accuracy"])
