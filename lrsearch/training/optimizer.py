"""The optimizer of a training."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from lrsearch.training.config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """An optimizer of the parameters that require gradients; parameters of one dimension are not decayed.

    Decaying biases and the scales of batch norm regularises nothing and harms short trainings, so it is
    commonly left out (He et al. 2019, "Bag of Tricks for Image Classification", 3.1).
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1]},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
    if config.optimizer == "rmsprop":
        # The decay rate of Sandler et al. 2018, "MobileNetV2", 6.1.
        return RMSprop(groups, lr=config.lr, alpha=0.9, momentum=config.momentum, weight_decay=config.weight_decay)
    kind = Adam if config.optimizer == "adam" else AdamW
    return kind(groups, lr=config.lr, betas=(config.momentum, 0.999), weight_decay=config.weight_decay)
