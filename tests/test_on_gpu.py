"""Every method on a GPU, where a machine has one: the trial that it makes there is the one that a CPU makes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lrsearch.dense import DenseSpec, Workplace, prepare_dense
from lrsearch.measure.deployment import Deployment
from lrsearch.methods import method_names
from lrsearch.outcome import read_result
from lrsearch.recipe import Recipe
from lrsearch.training import TrainingConfig
from lrsearch.trial import run_trial
from lrsearch.trial_spec import TrialSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")

CPU = Workplace(deployment=Deployment(batch_size=8), seconds=0.05, compares_speed=False)
GPU = replace(CPU, device="cuda")
MODEL, DATA = {"name": "digits_resnet", "width": 12}, {"name": "tests.generated:images", "shape": [1, 8, 8]}
TRAIN = TrainingConfig(epochs=2, batch_size=16).model_dump(mode="json")
FEW_STEPS = {"rene": {"steps": 5, "initial_step": 4}, "dlrt": {"adaptive_epochs": 1, "fine_tuning_epochs": 1}}
TRAINED = ("rene", "dlrt")
"""Rounding errors grow over their steps, until another rank is better."""


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    list(prepare_dense(DenseSpec(MODEL, DATA, TRAIN, 0, CPU), folder / "dense"))
    return folder


def trial(method: str, where: Workplace, dense: Path, folder: Path) -> tuple[dict[str, Any], Recipe]:
    spec = TrialSpec(
        number=0, method=method, hyperparameters={"budget": {"params": 0.5}, **FEW_STEPS.get(method, {})}, model=MODEL,
        data=DATA, retrain=TRAIN | {"epochs": 1}, seed=0, workplace=where,
        dense_folder=str(dense / "dense"), cache_folder=str(dense / "cache"),
    )  # fmt: skip
    list(run_trial(spec, folder / where.device))
    result = read_result(folder / where.device)
    assert result is not None and result["state"] == "complete", json.dumps(result)
    return result["metrics"], Recipe.load(folder / where.device / "recipe.json")


@pytest.mark.parametrize("method", method_names())
def test_a_trial_is_the_same_as_on_a_cpu(method: str, dense: Path, tmp_path: Path) -> None:
    (here, recipe), (there, other) = (trial(method, where, dense, tmp_path) for where in (CPU, GPU))
    if method in TRAINED:
        assert there["cr_p"] == pytest.approx(here["cr_p"], abs=5) and there["cr_p"] >= 50
    else:
        assert other.layers == recipe.layers
        assert there["compressed_accuracy"] == pytest.approx(here["compressed_accuracy"], abs=2)
        assert there["accuracy"] == pytest.approx(here["accuracy"], abs=5)
