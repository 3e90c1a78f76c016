"""What a space file may say about training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lrsearch.training.presets import with_preset


class DistillationConfig(BaseModel):
    """How a network is trained towards another."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    teacher: dict[str, Any] | None = None
    """Under ``train``, the other network as under ``model``, trained first in the same way unless it has ``weights``.
    Under ``retrain`` the dense network is the teacher."""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of the distance between predictions, beside the cross-entropy."""
    layers: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Under ``retrain``, of the distances of factorized layers to dense ones, of their weights and of their outputs,
    beside the cross-entropy and what the method adds itself (RENE, eqs. 10 and 11)."""
    temperature: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    """That softens the predictions of both."""


class TrainingConfig(BaseModel):
    """How a network is trained. The defaults suit batch-normalised CNNs trained with SGD.

    The key ``preset`` stands for the values of a published schedule (see ``presets``), which other keys override.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    epochs: int = Field(default=12, ge=0)
    """Passes over the training split."""
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    """All but ``sgd`` want a much smaller ``lr`` than the default, ``adam`` and ``adamw`` about 0.001."""
    lr: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Learning rate at the start of the schedule, after the warm-up."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of ``sgd`` and ``rmsprop``; the first decay rate of ``adam`` and ``adamw``."""
    nesterov: bool = False
    """Nesterov's momentum, with ``sgd``."""
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False)
    """Of weights with two dimensions or more; biases and batch norm are never decayed."""
    batch_size: int = Field(default=64, ge=1)
    """Largest number of images per step; an epoch's batches differ in size by at most one."""
    schedule: Literal["cosine", "step", "poly", "constant"] = "cosine"
    """How the learning rate falls: along half a cosine to 0, by ``gamma`` at the ``milestones``, as the ``power`` of
    what is left of the schedule, or not."""
    milestones: tuple[int, ...] = ()
    """Epochs after which the ``step`` schedule multiplies the learning rate by ``gamma``."""
    gamma: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Factor of the ``step`` schedule."""
    power: float = Field(default=0.9, gt=0, allow_inf_nan=False)
    """Exponent of the ``poly`` schedule."""
    warmup_epochs: int = Field(default=0, ge=0)
    """First epochs of the schedule, in which the learning rate rises linearly from 0."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target probability that is spread over all classes."""
    distil: DistillationConfig | None = None
    """Train towards a teacher's predictions too (Hinton et al. 2015); ``retrain`` does not take this from ``train``."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Evaluate and keep the exponential moving average of the weights over steps, with this share of the old."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of forward and backward passes where it is safe (autocast); weights stay in float32. Losses are scaled for
    ``float16``."""
    deterministic: bool = False
    """Use only algorithms that give the same result every time, also on a GPU; slower, and an error where torch has
    none."""
    schedule_epochs: int | None = Field(default=None, ge=1)
    """Length of the schedule where it is longer than the training, which then runs the schedule's last
    ``epochs`` epochs: learning-rate rewinding (ALDS supplement, B.5)."""

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: Any) -> Any:
        return with_preset(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        length = self.schedule_epochs
        if length is not None and length < self.epochs:
            raise ValueError(f"schedule_epochs is {length}, expected at least epochs, which is {self.epochs}")
        if self.schedule == "step" and not self.milestones:
            raise ValueError("milestones is empty, expected the epochs at which the step schedule falls")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov is true, which needs optimizer sgd and a momentum above 0")
        return self


class RetrainingConfig(TrainingConfig):
    """How a network is trained after compression."""

    rounds: int = Field(default=1, ge=1)
    """How often it is compressed and retrained, each time for ``epochs`` (ALDS supplement, B.5). Before a further
    round the factors are multiplied out to dense layers; the budget is tightened from round to round."""

    @model_validator(mode="after")
    def _rounds_train(self) -> RetrainingConfig:
        if self.rounds > 1 and self.epochs == 0:
            raise ValueError(f"rounds is {self.rounds}, which needs epochs of 1 or more between them")
        return self
