"""What ``dlrt`` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lrsearch.distributions import Uniform
from lrsearch.methods import base
from lrsearch.methods.base import Budget, Search
from lrsearch.training import TrainingConfig

TAU = 0.1


class DlrtHyperparameters(base.Hyperparameters):
    """What ``dlrt`` can be told."""

    budget: Budget | None = None
    """What to keep, instead of ``tau``: every truncation chooses the smallest tau that the budget allows."""
    recalibrate: bool = False
    """Re-estimate batch-norm statistics afterwards; training has kept them up to date."""
    tau: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, Search(Uniform(0.03, 0.2, log=True))] = None
    """Share of a layer's Frobenius norm that a truncation may lose; 0.1 where neither tau nor budget is given. It caps
    ranks: at rest they are at most 1 / tau^2, whatever the width of the layer."""
    tau_start: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Where tau starts, to move linearly to ``tau`` over the adaptive epochs; None: at ``tau``."""
    start: Literal["dense", "scratch"] = "dense"
    """Train on from the dense network's weights, or from the usual initialisation."""
    initial_rank: Annotated[int, Field(ge=1)] | None = None
    """Of every layer, as far as it has so many; None: what tau or the budget makes of the weights at the start."""
    integrator: Literal["bug", "parallel", "fixed_rank"] = "bug"
    """How bases follow the gradient in the adaptive epochs; with ``fixed_rank`` ranks stay as they start."""
    adaptive_epochs: Annotated[int, Field(ge=0)] = 6
    """Epochs in which ranks adapt."""
    fine_tuning: Literal["fixed_rank", "s_only"] = "s_only"
    """How the network trains on at its final ranks: bases too, or only S and what is not low-rank."""
    fine_tuning_epochs: Annotated[int, Field(ge=0)] = 2
    """Epochs at the final ranks."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """First steps, in which truncations go back to the ranks that layers had."""
    truncate_every: Annotated[int, Field(ge=1)] = 10
    """So many steps S learns in the same augmented bases before a truncation; 1 is the paper's algorithm. More are
    cheaper, and give new directions time to prove their worth, which momentum needs."""
    r_min: Annotated[int, Field(ge=1)] = 1
    """Smallest rank of a layer."""
    r_max: Annotated[int, Field(ge=1)] | None = None
    """Largest rank of a layer; None: the largest at which it is smaller than the dense layer."""
    tile: Annotated[int, Field(ge=1)] = 1
    """Ranks are rounded up to multiples of this, where the layer has any: the hardware's tile."""
    classifier: bool = False
    """Whether the last Linear layer is made low-rank too; worth it where there are many classes."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Of S and everything that is not low-rank; bases take plain steps."""
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False), Search(Uniform(0.01, 0.1, log=True))] = 0.03
    """Learning rate at the start; it falls to 0 along half a cosine over all epochs."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of ``sgd``; the first decay rate of ``adam`` and ``adamw``."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    """Of S, whose norm is that of the layer's weight, and of the weights of dense layers."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Largest number of images per step."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of a step's gradient."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of forward and backward passes; decompositions are in float32 or better. For ``float16`` the loss is scaled."""

    @model_validator(mode="after")
    def _consistent(self) -> DlrtHyperparameters:
        if self.tau is not None and self.budget is not None:
            raise ValueError("expected tau or budget, got both")
        if self.tau_start is not None and self.budget is not None:
            raise ValueError("expected tau_start or budget, got both")
        if self.r_max is not None and self.r_max < self.r_min:
            raise ValueError(f"r_max is {self.r_max}, expected at least r_min, which is {self.r_min}")
        return self

    @property
    def epochs(self) -> int:
        """Of both phases."""
        return self.adaptive_epochs + self.fine_tuning_epochs

    def training(self) -> TrainingConfig:
        """The training of both phases."""
        return TrainingConfig(
            epochs=self.epochs,
            optimizer=self.optimizer,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
        )
