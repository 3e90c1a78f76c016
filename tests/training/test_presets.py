"""The presets against the tables of the ALDS supplement, stated here once more, row by row."""

import pytest
from pydantic import ValidationError

from lrsearch.errors import LrsearchError
from lrsearch.space import parse_space
from lrsearch.training import TrainingConfig
from lrsearch.training.presets import PRESETS
from lrsearch.training.schedule import learning_rate

ROWS = ("optimizer", "epochs", "warmup_epochs", "batch_size", "lr", "momentum", "nesterov", "weight_decay")
TABLES = {
    "cifar10_vgg16": ("sgd", 300, 10, 256, 0.05, 0.9, False, 5.0e-4),
    "cifar10_resnet20": ("sgd", 182, 5, 128, 0.1, 0.9, False, 1.0e-4),
    "cifar10_densenet22": ("sgd", 300, 10, 64, 0.1, 0.9, True, 1.0e-4),
    "cifar10_wrn16_8": ("sgd", 200, 5, 128, 0.1, 0.9, True, 5.0e-4),
    "imagenet_resnet18": ("sgd", 90, 5, 256, 0.1, 0.9, False, 1.0e-4),
    "imagenet_alexnet": ("sgd", 90, 5, 256, 0.1, 0.9, False, 1.0e-4),
    "imagenet_mobilenetv2": ("rmsprop", 300, 0, 768, 0.045, 0.9, False, 4.0e-5),
    "imagenet_mobilenetv2_retraining": ("rmsprop", 300, 0, 768, 1e-4, 0.9, False, 4.0e-5),
    "voc_deeplabv3": ("sgd", 45, 0, 32, 0.02, 0.9, False, 1.0e-4),
}

RATES = {
    # The rate in the middle of an epoch, from the row "LR decay".
    "cifar10_vgg16": {20: 0.05, 45: 0.05 * 0.5, 75: 0.05 * 0.5**2, 299: 0.05 * 0.5**9},
    "cifar10_resnet20": {90: 0.1, 91: 0.01, 135: 0.01, 136: 0.001, 181: 0.001},
    "cifar10_densenet22": {149: 0.1, 150: 0.01, 224: 0.01, 225: 0.001, 299: 0.001},
    "cifar10_wrn16_8": {59: 0.1, 60: 0.02, 120: 0.004, 180: 0.0008, 199: 0.0008},
    "imagenet_resnet18": {29: 0.1, 30: 0.01, 60: 0.001, 80: 0.0001, 89: 0.0001},
    "imagenet_alexnet": {29: 0.1, 30: 0.01, 60: 0.001, 80: 0.0001, 89: 0.0001},
    "imagenet_mobilenetv2": {0: 0.045, 1: 0.045 * 0.98, 299: 0.045 * 0.98**299},
    "imagenet_mobilenetv2_retraining": {0: 1e-4, 299: 1e-4 * 0.98**299},
    "voc_deeplabv3": {0: 0.02 * (1 - 0.5 / 45) ** 0.9, 22: 0.02 * 0.5**0.9, 44: 0.02 * (0.5 / 45) ** 0.9},
}


def space(**entries):
    base = {"model": {"name": "digits_mlp"}, "data": {"name": "digits"}, "methods": {"alds": {}}}
    return parse_space(base | entries)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_the_column_of_the_table(name):
    config = TrainingConfig.model_validate({"preset": name})

    assert tuple(getattr(config, row) for row in ROWS) == TABLES[name]
    for epoch, rate in RATES[name].items():
        assert learning_rate(config, epoch + 0.5) == pytest.approx(rate)


def test_keys_beside_a_preset_override_it():
    train = space(train={"preset": "cifar10_resnet20", "batch_size": 64}).train

    assert (train.batch_size, train.milestones, train.epochs) == (64, (91, 136), 182)


def test_retraining_goes_through_the_last_epochs_of_the_presets_schedule():
    """The supplement's step 3: epochs e - r to e of the original schedule."""
    retraining = space(train={"preset": "cifar10_resnet20"}, retrain={"epochs": 9}).retraining()
    assert [learning_rate(retraining, epoch + 0.5) for epoch in range(9)] == pytest.approx([0.001] * 9)

    own = {"preset": "imagenet_mobilenetv2_retraining", "epochs": 30}
    retraining = space(train={"preset": "imagenet_mobilenetv2"}, retrain=own).retraining()
    assert learning_rate(retraining, 0.5) == pytest.approx(1e-4 * 0.98**270)
    assert retraining.optimizer == "rmsprop"


@pytest.mark.parametrize("section", ["train", "retrain"])
def test_unknown_preset_names_the_nearest(section):
    with pytest.raises(LrsearchError, match=r"cifar_resnet20.*did you mean 'cifar10_resnet20'"):
        space(**{section: {"preset": "cifar_resnet20"}})
    with pytest.raises(ValidationError, match="preset"):
        TrainingConfig.model_validate({"preset": ["cifar10_resnet20"]})
