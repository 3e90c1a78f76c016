"""A real sweep in which one of two methods diverges in its trials, between those of the other."""

import re
import subprocess
import sys

import pytest

from lrsearch.sweeps import load_front

pytestmark = pytest.mark.slow

SPACE = """
model: {name: digits_resnet, width: 4}
data: {name: digits}
train: {epochs: 1}
retrain: {epochs: 0}
methods:
  svd: {budget: {params: {uniform: [0.4, 0.7]}}}
  rene: {budget: {params: 0.5}, decomposition: cp, objective: paper, lr: 1.0e+30, steps: 2, warm_up: 2}
search: {trials: 3}
measure: {seconds: 0.05}
"""


def test_trials_that_diverge_fail_naming_layer_and_candidate_and_the_others_finish(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    command = [sys.executable, "-m", "lrsearch.cli", "search", "space.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)

    assert done.returncode == 0, done.stderr + done.stdout
    trials = load_front("space", str(tmp_path / "lrsearch_runs")).trials
    assert len(trials) == 3
    assert {(trial.method, trial.state) for trial in trials} == {("rene", "failed"), ("svd", "complete")}
    words = r"the rank search diverged: its loss is not finite at layer '\S+', candidate of rank \d+"
    assert all(re.fullmatch(words, trial.reason) for trial in trials if trial.state == "failed")
