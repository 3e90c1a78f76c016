"""The learning rate as a function of time alone, so that there is no state to lose."""

from __future__ import annotations

import math

from lrsearch.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """The learning rate at a moment of the training.

    Args:
        config: the schedule; where it is longer than the training, the training sees the end of it.
        epoch: time since the training's start in epochs, 0 <= epoch <= ``config.epochs``.
    """
    length = config.schedule_epochs or config.epochs
    now = length - config.epochs + epoch
    if now < config.warmup_epochs:
        return config.lr * now / config.warmup_epochs
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "step":
        return config.lr * config.gamma ** sum(now >= milestone for milestone in config.milestones)
    progress = (now - config.warmup_epochs) / (length - config.warmup_epochs)
    if config.schedule == "poly":
        return float(config.lr * (1 - progress) ** config.power)
    return config.lr * (1 + math.cos(math.pi * progress)) / 2
