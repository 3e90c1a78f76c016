"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lrsearch.data import Batches, Splits
from lrsearch.data.seeds import derived_seed
from lrsearch.errors import TrialFailedError
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.gate import DeviceGate
from lrsearch.training.checkpoint import Checkpoint, Epoch
from lrsearch.training.config import TrainingConfig
from lrsearch.training.optimizer import build_optimizer
from lrsearch.training.random_state import random_state
from lrsearch.training.retraining import Retraining
from lrsearch.training.schedule import learning_rate


def train(
    model: nn.Module,
    splits: Splits,
    config: TrainingConfig,
    *,
    device: torch.device,
    seed: int,
    gate: DeviceGate,
    checkpoint: Path | None = None,
    retraining: Retraining | None = None,
) -> Iterator[Epoch]:
    """Train ``model`` in place on ``device``, yielding after every epoch; afterwards it is in eval mode.

    All randomness of epoch e (order, augmentation, dropout) comes from ``derived_seed(seed, e)``, e from 1,
    so an epoch is the same wherever it runs, and torch's global random state is left as it was.

    Args:
        model: the network; parameters that require no gradient stay as they are.
        splits: it is trained on ``train`` and, after every epoch, evaluated on ``validation``.
        config: how to train.
        device: where to train; the model is moved there.
        seed: 0 or more.
        gate: each step and each evaluation batch holds ``gate.work()``.
        checkpoint: written before each yield. If it exists, training goes on from it, on the CPU bit for bit
            as if it had never stopped, and only the remaining epochs are yielded.
        retraining: what a compression method freezes, and adds to the loss.

    Raises:
        TrialFailedError: the loss is not finite, or the device's memory is exhausted.
        LrsearchError: the checkpoint is damaged or belongs to another training.
    """
    model.to(device)
    optimizer = build_optimizer(model, config)
    origin = {"seed": seed, **config.model_dump(mode="json")}
    history: list[Epoch] = []
    if checkpoint is not None and checkpoint.exists():
        saved = Checkpoint.load(checkpoint)
        saved.restore(checkpoint, model, optimizer, origin)
        history = saved.history
    retraining = retraining or Retraining()
    trainer = _Trainer(model, optimizer, config, device, gate, retraining)
    for epoch in range(len(history) + 1, config.epochs + 1):
        started = time.monotonic()
        epoch_seed = derived_seed(seed, epoch)
        with random_state(epoch_seed, device), _frozen(model, retraining.frozen(epoch)):
            batches = splits.batches("train", config.batch_size, seed=epoch_seed)
            loss, lr = trainer.run_epoch(batches, epoch)
        accuracy = evaluate(model, splits.batches("validation", config.batch_size), device, gate)
        history.append(Epoch(epoch, config.epochs, loss, accuracy, lr, time.monotonic() - started))
        if checkpoint is not None:
            Checkpoint(model.state_dict(), optimizer.state_dict(), history, origin).save(checkpoint)
        yield history[-1]
    model.eval()


@dataclass(frozen=True)
class _Trainer:
    model: nn.Module
    optimizer: Optimizer
    config: TrainingConfig
    device: torch.device
    gate: DeviceGate
    retraining: Retraining

    def run_epoch(self, batches: Batches, epoch: int) -> tuple[float, float]:
        """Train for one epoch; returns the mean loss and the first step's learning rate."""
        rates = [learning_rate(self.config, epoch - 1 + (step + 0.5) / len(batches)) for step in range(len(batches))]
        total, images = 0.0, 0
        remaining = iter(batches)
        self.model.train()
        for rate in rates:
            with self.gate.work():
                inputs, targets = next(remaining)
                loss = self._step(inputs.to(self.device), targets.to(self.device), rate, epoch)
            total += loss * len(inputs)
            images += len(inputs)
        self.model.eval()
        return total / images, rates[0]

    def _step(self, inputs: Tensor, targets: Tensor, rate: float, epoch: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        try:
            loss = self._loss(inputs, targets)
            loss.backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError as error:
            raise TrialFailedError(
                f"memory of {self.device} exhausted in epoch {epoch} at batch size {len(inputs)}"
            ) from error
        value = loss.item()
        if not math.isfinite(value):
            raise TrialFailedError(f"loss is {value} in epoch {epoch}, at learning rate {rate:.3g}")
        self.optimizer.step()
        return value

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        outputs = self.model(inputs)
        loss = cross_entropy(outputs, targets, label_smoothing=self.config.label_smoothing)
        extra = self.retraining.extra_loss
        return loss if extra is None else loss + extra(inputs, outputs)


@contextmanager
def _frozen(model: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Hold parameters fixed: no gradient of them is computed, so the optimizer passes them over."""
    parameters = [model.get_parameter(name) for name in names]
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
