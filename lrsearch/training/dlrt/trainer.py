"""Epochs of low-rank training: steps by an integrator, each followed by a truncation where ranks adapt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lrsearch.data import Splits
from lrsearch.data.seeds import derived_seed
from lrsearch.training.config import TrainingConfig
from lrsearch.training.dlrt.integrators import AUGMENTING, Integrator
from lrsearch.training.dlrt.layers import LowRankLayer
from lrsearch.training.dlrt.state import SavedTraining
from lrsearch.training.dlrt.step import Stepper
from lrsearch.training.dlrt.truncation import ChooseRanks, truncate
from lrsearch.training.optimizer import build_optimizer
from lrsearch.training.schedule import learning_rate

_RESTING: Integrator = "s_only"


@dataclass
class History:
    """What happened in each epoch.

    Attributes:
        ranks: layer -> its rank after each epoch.
        loss: mean over the training images.
        train_accuracy: on the training images as they were trained on, in percent.
        tau: at the end of each adaptive epoch.
    """

    ranks: dict[str, list[int]] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    tau: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs of one kind.

    Attributes:
        before: epochs of the training that come before.
        epochs: how many this phase has.
        integrator: how bases move.
        choose: progress of the phase, 0 to 1 -> the ranks to truncate to.
        tau: progress of the phase -> the relative loss that its choice amounts to.
        warmup_steps: first steps, in which truncations go back to the ranks that layers had.
        truncate_every: so many steps S learns in the same augmented bases, from one augmentation to its truncation;
            the last truncation of an epoch ends it. Directions that are new have that long to prove their worth.
    """

    before: int
    epochs: int
    integrator: Integrator
    choose: Callable[[float], ChooseRanks] | None = None
    tau: Callable[[float], float] | None = None
    warmup_steps: int = 0
    truncate_every: int = 1


@dataclass
class LowRankTraining:
    """A network with low-rank layers in training.

    All randomness of an epoch comes from ``derived_seed(seed, epoch)``, so that it is the same wherever it runs.

    Attributes:
        model: on ``device``.
        layers: its low-rank layers, by name.
        splits: it is trained on ``train``.
        config: learning rate, its schedule over all epochs of all phases, optimizer, batch size, label smoothing.
        device: where it trains.
        seed: 0 or more.
        clip: see ``Stepper``.
        precision: see ``Stepper``.
        checkpoint: written after every epoch.
        origin: what else the training depends on.
        history: of the epochs so far.
    """

    model: nn.Module
    layers: Mapping[str, LowRankLayer]
    splits: Splits
    config: TrainingConfig
    device: torch.device
    seed: int
    clip: float | None = None
    precision: torch.dtype = torch.float32
    checkpoint: Path | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches."""
        return len(self.splits.batches("train", self.config.batch_size))

    def run(self, phase: Phase, saved: SavedTraining | None = None) -> Iterator[None]:
        """Train the epochs of a phase that ``saved`` does not hold, yielding after every step.

        Raises:
            TrialFailedError: training diverged, or the device's memory is exhausted.
        """
        optimizer = build_optimizer(self.model, self.config)
        finished = phase.before
        if saved is not None:
            finished = saved.epoch
            ended = finished == phase.before + phase.epochs
            saved.restore(self.model, self.layers, None if ended else optimizer)
            self.history = History(**saved.history)
        self.model.train()
        for epoch in range(finished + 1, phase.before + phase.epochs + 1):
            yield from self._epoch(phase, epoch, optimizer)
            if self.checkpoint is not None:
                state = self.model.state_dict(), optimizer.state_dict()
                SavedTraining(epoch, *state, vars(self.history), self.origin).save(self.checkpoint)

    def _epoch(self, phase: Phase, epoch: int, optimizer: Optimizer) -> Iterator[None]:
        seed = derived_seed(self.seed, epoch)
        batches = self.splits.batches("train", self.config.batch_size, seed=seed)
        moving, resting = (self._stepper(optimizer, integrator) for integrator in (phase.integrator, _RESTING))
        every = phase.truncate_every if phase.integrator in AUGMENTING else 1
        ranks: dict[str, int] = {}
        loss, correct, images = 0.0, 0.0, 0
        for step, (inputs, targets) in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.config, epoch - 1 + (step + 0.5) / len(batches))
            if step % every == 0:
                ranks = {name: layer.rank for name, layer in self.layers.items()}
            stepper = moving if step % every == 0 else resting
            outcome = stepper.step(inputs.to(self.device), targets.to(self.device), derived_seed(seed, step))
            if phase.integrator in AUGMENTING and ((step + 1) % every == 0 or step + 1 == len(batches)):
                past = (epoch - 1 - phase.before) * len(batches) + step + 1
                truncate(self.layers, self._choice(phase, past, len(batches), ranks), optimizer.state)
            loss, correct, images = loss + outcome.loss * len(inputs), correct + outcome.correct, images + len(inputs)
            yield
        for name, layer in self.layers.items():
            self.history.ranks.setdefault(name, []).append(layer.rank)
        self.history.loss.append(loss / images)
        self.history.train_accuracy.append(100 * correct / images)
        if phase.tau is not None:
            self.history.tau.append(phase.tau((epoch - phase.before) / phase.epochs))

    def _stepper(self, optimizer: Optimizer, integrator: Integrator) -> Stepper:
        loss = partial(cross_entropy, label_smoothing=self.config.label_smoothing)
        return Stepper(self.model, self.layers, optimizer, integrator, loss, clip=self.clip, precision=self.precision)

    def _choice(self, phase: Phase, past: int, steps: int, ranks: Mapping[str, int]) -> ChooseRanks:
        """How to truncate after ``past`` steps of a phase of so many steps an epoch."""
        if phase.choose is None or past <= phase.warmup_steps:
            return lambda _: ranks
        return phase.choose(past / (phase.epochs * steps))
