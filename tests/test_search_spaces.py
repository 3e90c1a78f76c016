"""Every space that comes with lrsearch runs: a dense network, one trial, a few steps on generated images."""

from pathlib import Path
from typing import Any

import pytest

from lrsearch.dense import DenseSpec, Workplace, load_dense_record, prepare_dense
from lrsearch.distributions import Choice
from lrsearch.measure.deployment import Deployment
from lrsearch.methods import parse_hyperparameters
from lrsearch.models import input_shape
from lrsearch.outcome import read_result
from lrsearch.space import MEASURE, load_space
from lrsearch.trial import run_trial
from lrsearch.trial_spec import TrialSpec

SPACES = {path.stem: path for path in sorted((Path(__file__).parents[1] / "search_spaces").glob("*.yaml"))}
HERE = Workplace(deployment=Deployment(batch_size=2), seconds=0.02)
RUNS: dict[str, tuple[str, dict[str, str]]] = {
    "cifar100_double_compression": ("rene", {"methods.rene.steps": "2", "methods.rene.warm_up": "1"}),
    "cifar10_densenet22": ("alds", {}),
    "cifar10_resnet20": ("alds_output", {}),
    "cifar10_vgg16": ("tucker", {}),
    "cifar10_wrn16_8": ("pfp", {"data.shape": "[3, 8, 8]"}),
    "digits": ("alds", {}),
    "digits_tucker": ("tucker", {}),
    "imagenet_alexnet": ("svd", {"model.name": "tests.generated:narrow_alexnet"}),
    "imagenet_mobilenetv2": ("alds", {"model.width_mult": "0.5"}),
    "imagenet_resnet18": ("tucker", {}),
    "imagenet_resnet50": ("tucker", {"model.width_per_group": "16", "methods.tucker.optimise_ranks": "false"}),
    "imagenet_vit": ("svd_energy", {"model.name": "tests.generated:tiny_vit", "data.shape": "[3, 16, 16]"}),
    "mnist_mlp": ("dlrt", {"methods.dlrt.adaptive_epochs": "1", "methods.dlrt.fine_tuning_epochs": "1"}),
    "voc_deeplabv3": ("tucker", {"model.name": "deeplabv3_mobilenet_v3_large", "data.pixelwise": "true"}),
}
"""Space -> the method of the trial, and what is made smaller: networks of ImageNet, and long compressions."""


def shrunk(name: str) -> dict[str, str]:
    """What is laid over a space so that it runs in seconds on a CPU."""
    model = load_space(SPACES[name]).model
    if name.startswith("digits"):
        data = {"train.batch_size": "64"}
    else:
        shape = input_shape(model["name"])
        assert shape is not None
        side = shape if max(shape) <= 32 else (3, 64, 64)
        data = {"data": f"{{name: 'tests.generated:images', shape: {list(side)}, train: 8, held_out: 4}}"}
    untrained = {key: value for key, value in model.items() if key != "weights"}
    few = {"train.epochs": "1", "retrain.epochs": "1", "train.batch_size": "8", "train.warmup_epochs": "0"}
    return {"model": str(untrained), **few, **data, **RUNS[name][1]}


def test_every_space_has_a_run() -> None:
    assert RUNS.keys() == SPACES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_a_space_runs(name: str, tmp_path: Path) -> None:
    space = load_space(SPACES[name], shrunk(name))
    drawn: dict[str, dict[str, Any]] = {
        method: space.draw(method, lambda _, choice: choice.at(0.0 if isinstance(choice, Choice) else 0.5))
        for method in space.methods
    }
    for method, values in drawn.items():
        values.pop(MEASURE, None)
        parse_hyperparameters(method, values)
    dense = DenseSpec(space.model, space.data, space.train.model_dump(mode="json"), 0, HERE)
    list(prepare_dense(dense, tmp_path / "dense"))
    method = RUNS[name][0]
    spec = TrialSpec(
        number=0, method=method, hyperparameters=drawn[method], model=space.model, data=space.data,
        retrain=space.retraining().model_dump(mode="json"), seed=0, workplace=HERE,
        dense_folder=str(tmp_path / "dense"), cache_folder=str(tmp_path / "cache"),
    )  # fmt: skip
    list(run_trial(spec, tmp_path / "trial"))
    result = read_result(tmp_path / "trial")
    assert result is not None and result["state"] == "complete" and len(result["epochs"]) == 1
    assert 0 < result["metrics"]["params"] < load_dense_record(tmp_path / "dense").params
