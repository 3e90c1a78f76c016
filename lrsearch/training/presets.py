"""Published training schedules by name: the values of a ``TrainingConfig`` as plain data.

Source: ALDS supplement B, tables 3 (CIFAR-10), 4 (ImageNet) and 5 (Pascal VOC 2012).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrsearch.names import unknown_name

PRESETS: dict[str, dict[str, Any]] = {
    "cifar10_vgg16": {
        "epochs": 300,
        "warmup_epochs": 10,
        "batch_size": 256,
        "lr": 0.05,
        "schedule": "step",
        "gamma": 0.5,
        "milestones": tuple(range(30, 300, 30)),
        "weight_decay": 5e-4,
    },
    "cifar10_resnet20": {
        "epochs": 182,
        "warmup_epochs": 5,
        "batch_size": 128,
        "lr": 0.1,
        "schedule": "step",
        "gamma": 0.1,
        "milestones": (91, 136),
        "weight_decay": 1e-4,
    },
    "cifar10_densenet22": {
        "epochs": 300,
        "warmup_epochs": 10,
        "batch_size": 64,
        "lr": 0.1,
        "schedule": "step",
        "gamma": 0.1,
        "milestones": (150, 225),
        "nesterov": True,
        "weight_decay": 1e-4,
    },
    "cifar10_wrn16_8": {
        "epochs": 200,
        "warmup_epochs": 5,
        "batch_size": 128,
        "lr": 0.1,
        "schedule": "step",
        "gamma": 0.2,
        "milestones": (60, 120, 180),
        "nesterov": True,
        "weight_decay": 5e-4,
    },
    "imagenet_resnet18": {
        "epochs": 90,
        "warmup_epochs": 5,
        "batch_size": 256,
        "lr": 0.1,
        "schedule": "step",
        "gamma": 0.1,
        "milestones": (30, 60, 80),
        "weight_decay": 1e-4,
    },
    "imagenet_mobilenetv2": {
        "epochs": 300,
        "batch_size": 768,
        "optimizer": "rmsprop",
        "lr": 0.045,
        "schedule": "step",
        # "0.98 per step" of the schedule, which is an epoch, as in the network's own paper (Sandler et al. 2018, 6.1).
        "gamma": 0.98,
        "milestones": tuple(range(1, 300)),
        "weight_decay": 4e-5,
    },
    "voc_deeplabv3": {
        "epochs": 45,
        "batch_size": 32,
        "lr": 0.02,
        "schedule": "poly",
        "power": 0.9,
        "weight_decay": 1e-4,
    },
}
"""Name -> what differs from the defaults of a ``TrainingConfig``."""

PRESETS["imagenet_alexnet"] = PRESETS["imagenet_resnet18"]
PRESETS["imagenet_mobilenetv2_retraining"] = PRESETS["imagenet_mobilenetv2"] | {"lr": 1e-4, "schedule_epochs": 300}


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the key ``preset`` by what it stands for, which the other keys override.

    Raises:
        ValueError: there is no preset of that name.
    """
    overrides = dict(values)
    name = overrides.pop("preset", None)
    if name is None:
        return overrides
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(str(unknown_name("preset", name, PRESETS)))
    return PRESETS[name] | overrides
