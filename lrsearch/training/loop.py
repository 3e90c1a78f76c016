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
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lrsearch.data import Batches, Splits
from lrsearch.data.seeds import derived_seed
from lrsearch.errors import TrialFailedError
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.gate import DeviceGate
from lrsearch.training.checkpoint import Checkpoint, Epoch
from lrsearch.training.config import TrainingConfig
from lrsearch.training.data_parallel import average_gradients, place
from lrsearch.training.optimizer import build_optimizer
from lrsearch.training.random_state import deterministic_algorithms, random_state
from lrsearch.training.retraining import Retraining
from lrsearch.training.schedule import learning_rate

PARTS_WHEN_SHORT_OF_MEMORY = 4


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
    so an epoch is the same wherever it runs, and torch's global random state is left as it was. Where several processes
    train together (``data_parallel``), all call it alike; only the leader evaluates and writes the checkpoint.

    Args:
        model: the network; parameters that require no gradient stay as they are.
        splits: it is trained on ``train`` and, after every epoch, evaluated on ``validation``.
        config: how to train.
        device: where to train; the model is moved there.
        seed: 0 or more.
        gate: each step and each evaluation batch holds ``gate.work()``.
        checkpoint: written before each yield. If it exists, training goes on from it, on the CPU bit for bit
            as if it had never stopped, and only the remaining epochs are yielded. It may be of a shorter training.
        retraining: what a compression method freezes, and adds to the loss.

    Raises:
        TrialFailedError: the loss is not finite, or the device's memory is exhausted although batches were cut
            into parts from the first time it was, their gradients accumulated.
        LrsearchError: the checkpoint is damaged or belongs to another training.
    """
    model.to(device)
    optimizer = build_optimizer(model, config)
    average = None if config.ema_decay is None else moving_average(model, config.ema_decay)
    scaler = GradScaler(device.type, enabled=config.precision == "float16")
    # Not its length: a training may be continued for more epochs.
    origin = {"seed": seed, **config.model_dump(mode="json", exclude={"epochs", "schedule_epochs"})}
    history: list[Epoch] = []
    if checkpoint is not None and checkpoint.exists():
        saved = Checkpoint.load(checkpoint)
        saved.restore(checkpoint, origin, model, optimizer, average)
        scaler.load_state_dict(saved.scaler)
        history = saved.history
    retraining = retraining or Retraining()
    trainer = _Trainer(model, optimizer, config, device, gate, retraining, average, scaler)
    result = model if average is None else average.module
    here = place()
    here.wait()  # until all have read the checkpoint that the leader will replace
    for epoch in range(len(history) + 1, config.epochs + 1):
        started = time.monotonic()
        epoch_seed = derived_seed(seed, epoch)
        with (
            random_state(here.seed(epoch_seed), device),
            deterministic_algorithms(config.deterministic),
            _frozen(model, retraining.frozen(epoch)),
        ):
            batches = splits.batches("train", config.batch_size, seed=epoch_seed, share=here)
            loss, lr = trainer.run_epoch(batches, epoch)
        if not here.leads:
            continue
        validation = splits.batches("validation", max(1, config.batch_size // trainer.parts))
        scores = evaluate(result, validation, device, gate, splits.score)
        accuracy, seconds = scores.pop("accuracy"), time.monotonic() - started
        history.append(Epoch(epoch, config.epochs, loss, accuracy, lr, seconds, scores))
        if checkpoint is not None:
            averaged = {} if average is None else average.state_dict()
            state = model.state_dict(), optimizer.state_dict(), history, origin, averaged, scaler.state_dict()
            Checkpoint(*state).save(checkpoint)
        yield history[-1]
    model.load_state_dict(result.state_dict())
    model.eval()


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy whose ``update_parameters`` moves its weights and statistics towards the model's (Polyak averaging)."""
    step = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=step, use_buffers=True)


@dataclass
class _Trainer:
    model: nn.Module
    optimizer: Optimizer
    config: TrainingConfig
    device: torch.device
    gate: DeviceGate
    retraining: Retraining
    average: AveragedModel | None
    scaler: GradScaler
    parts: int = 1
    """Into how many parts a batch is cut, their gradients added up."""

    def run_epoch(self, batches: Batches, epoch: int) -> tuple[float, float]:
        """Train for one epoch; returns the mean loss and the first step's learning rate."""
        rates = [learning_rate(self.config, epoch - 1 + (step + 0.5) / len(batches)) for step in range(len(batches))]
        total, images = 0.0, 0
        remaining = iter(batches)
        self.model.train()
        for rate in rates:
            with self.gate.work():
                inputs, targets = next(remaining)
                inputs, targets = (tensor.to(self.device, non_blocking=True) for tensor in (inputs, targets))
                loss, number = self._step(inputs, targets, rate, epoch)
            total += loss * number
            images += number
        self.model.eval()
        return total / images, rates[0]

    def _step(self, inputs: Tensor, targets: Tensor, rate: float, epoch: int) -> tuple[float, int]:
        """Train on a batch, all processes' shares of it; returns its mean loss and its number of images."""
        images = len(inputs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        value = self._gradients(inputs, targets)
        if value is None and self.parts == 1:
            self.parts = PARTS_WHEN_SHORT_OF_MEMORY
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            value = self._gradients(inputs, targets)
        if value is None:
            raise TrialFailedError(
                f"memory of {self.device} exhausted in epoch {epoch} at batch size {len(inputs)}, "
                f"also when computed in {self.parts} parts"
            )
        if place().size > 1:
            value, images = average_gradients(self.model.parameters(), value, images, self.device)
        if not math.isfinite(value):
            raise TrialFailedError(f"loss is {value} in epoch {epoch}, at learning rate {rate:.3g}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return value, images

    def _gradients(self, inputs: Tensor, targets: Tensor) -> float | None:
        """Gradients of the mean loss over a batch, and that loss; None where the device's memory is exhausted."""
        self.optimizer.zero_grad()
        parts = max(1, min(self.parts, len(inputs) // 2))  # batch norm needs two images
        total = 0.0
        try:
            for some, their in zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True):
                loss = self._loss(some, their) * (len(some) / len(inputs))
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                total += loss.item()
        except torch.OutOfMemoryError:
            return None
        return total

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        precision = getattr(torch, self.config.precision)
        with torch.autocast(self.device.type, precision, enabled=precision is not torch.float32):
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
