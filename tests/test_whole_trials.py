"""A segmenter and a transformer: from the dense network to a compressed, retrained and measured one."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from lrsearch import rebuild
from lrsearch.dense import DenseSpec, Workplace, load_dense_model, prepare_dense
from lrsearch.factorize import copy_with, materialize
from lrsearch.measure.deployment import Deployment
from lrsearch.outcome import read_result
from lrsearch.recipe import Recipe
from lrsearch.training import TrainingConfig
from lrsearch.trial import evaluate_test, run_trial
from lrsearch.trial_spec import TrialSpec
from tests.data.voc import write_voc

HERE = Workplace(deployment=Deployment(batch_size=2), seconds=0.05)


def run(
    folder: Path,
    model: dict[str, Any],
    data: dict[str, Any],
    train: dict[str, Any],
    method: str,
    keep: float,
    **values: Any,
) -> tuple[TrialSpec, dict[str, float]]:
    config = TrainingConfig.model_validate(train).model_dump(mode="json")
    list(prepare_dense(DenseSpec(model, data, config, 0, HERE), folder / "dense"))
    spec = TrialSpec(
        number=0, method=method, hyperparameters={"budget": {"params": keep}, **values}, model=model, data=data,
        retrain=config | {"epochs": 1}, seed=0, workplace=HERE,
        dense_folder=str(folder / "dense"), cache_folder=str(folder / "cache"),
    )  # fmt: skip
    list(run_trial(spec, folder / "trial"))
    result = read_result(folder / "trial")
    assert result is not None and result["state"] == "complete"
    return spec, result["metrics"]


def check_factorized_layers_by_outputs(spec: TrialSpec, folder: Path, inputs: torch.Tensor) -> set[str]:
    """The network of factors answers as the dense structure with their products; returns the factorized layers."""
    model = rebuild(folder / "trial")
    dense = load_dense_model(spec.model, folder / "dense", torch.device("cpu"))
    recipe = Recipe.load(folder / "trial" / "recipe.json")
    chains = {name for name, factorization in recipe.layers.items() if factorization.kind != "dense"}
    whole = copy_with(
        copy.deepcopy(model),
        {name: materialize(model.get_submodule(name), dense.get_submodule(name)) for name in chains},
    )
    with torch.no_grad():
        torch.testing.assert_close(model(inputs), whole(inputs), rtol=1e-3, atol=1e-3)
        assert not torch.allclose(model(inputs), dense(inputs), atol=1e-3)
    return chains


@pytest.mark.slow
def test_deeplab_on_pascal_voc(tmp_path: Path) -> None:
    """Too few steps for its batch norms to learn what images are like: the figures mean nothing, the way is whole."""
    root = write_voc(tmp_path / "data", train=8, val=2)
    data = {"name": "voc2012", "root": str(root), "size": 48, "num_workers": 0}
    train = {"epochs": 1, "batch_size": 3, "lr": 0.02, "schedule": "poly"}
    spec, metrics = run(tmp_path, {"name": "deeplabv3_resnet50"}, data, train, "alds", 0.3)

    assert metrics["cr_p"] >= 70 and all(0 <= metrics[name] <= 100 for name in ("accuracy", "pixel_accuracy"))
    assert 0 <= evaluate_test(spec, tmp_path / "trial") <= 100
    chains = check_factorized_layers_by_outputs(spec, tmp_path, torch.randn(2, 3, 48, 48))
    assert any(name.startswith("network.classifier") for name in chains)
    assert any(name.startswith("network.backbone") for name in chains)


@pytest.mark.parametrize("method", ["alds_output", "dlrt", "pfp"])
def test_a_segmenter(method: str, tmp_path: Path) -> None:
    data = {"name": "tests.generated:images", "shape": [1, 8, 10], "pixelwise": True}
    train = {"epochs": 5, "batch_size": 16, "lr": 0.1}
    spec, metrics = run(tmp_path, {"name": "tests.generated:tiny_segmenter"}, data, train, method, 0.6)

    assert metrics["cr_p"] >= 40
    assert 60 < metrics["accuracy"] <= metrics["pixel_accuracy"] <= 100
    if method != "pfp":
        assert check_factorized_layers_by_outputs(spec, tmp_path, torch.randn(2, 1, 8, 10))


@pytest.mark.parametrize(("method", "keep", "values"), [("alds_output", 0.6, {}), ("rene", 0.7, {"steps": 10})])
def test_a_transformer(method: str, keep: float, values: dict[str, Any], tmp_path: Path) -> None:
    data = {"name": "tests.generated:images", "shape": [3, 16, 16]}
    train = {"epochs": 6, "batch_size": 16, "lr": 0.002, "optimizer": "adamw"}
    spec, metrics = run(tmp_path, {"name": "tests.generated:tiny_vit"}, data, train, method, keep, **values)

    assert metrics["cr_p"] >= 100 * (1 - keep) and metrics["accuracy"] > 60
    chains = check_factorized_layers_by_outputs(spec, tmp_path, torch.randn(5, 3, 16, 16))
    assert any(name.rpartition(".")[2] in {"query", "key", "value", "out_proj"} for name in chains)
