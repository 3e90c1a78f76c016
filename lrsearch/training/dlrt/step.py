"""One training step of a network with low-rank layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from lrsearch.errors import TrialFailedError
from lrsearch.training.dlrt.gradients import Integrate, Move, Tape
from lrsearch.training.dlrt.integrators import Integrator, augment, augment_in_parallel, replace_bases
from lrsearch.training.dlrt.layers import LowRankLayer
from lrsearch.training.dlrt.transport import transport
from lrsearch.training.random_state import random_state

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) of a batch -> a scalar."""


_FLOAT16_SCALE = 2.0**10
"""What losses are multiplied by so that gradients in float16 do not underflow; gradients are divided by it exactly."""


class Outcome(NamedTuple):
    """The loss of a batch before the step, and how many of its images, or parts of them, were classified correctly."""

    loss: float
    correct: float


class Stepper:
    """Trains U, S, V of low-rank layers by an integrator, everything else by the optimizer, in the same step.

    Where the integrator augments, all gradients come from one forward and backward pass. ``fixed_rank`` takes two,
    of which the first leaves batch-norm statistics alone and draws the same dropout masks as the second.
    After an augmenting step the layers have up to twice the rank: ``truncate`` is the caller's to call.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, LowRankLayer],
        optimizer: Optimizer,
        integrator: Integrator,
        loss: Loss,
        *,
        clip: float | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Nothing is changed yet.

        Args:
            model: in train mode.
            layers: its low-rank layers, by name.
            optimizer: of its parameters, the S of all layers among them.
            integrator: how bases move.
            loss: what to minimise.
            clip: largest norm of the gradient of all parameters together, and of one layer's K and L.
            precision: of forward and backward pass, such as ``torch.bfloat16``; decompositions are float32 or better.
        """
        self._model = model
        self._layers = layers
        self._optimizer = optimizer
        self._integrator = integrator
        self._loss = loss
        self._clip = clip
        self._precision = precision
        self._scale = _FLOAT16_SCALE if precision is torch.float16 else 1.0

    def step(self, inputs: Tensor, targets: Tensor, seed: int) -> Outcome:
        """Train on a batch; ``seed`` decides dropout.

        Raises:
            TrialFailedError: the loss is not finite, or the device's memory is exhausted.
        """
        passing = partial(self._pass, inputs, targets, seed)
        try:
            if self._integrator == "s_only":
                outcome = passing()
            elif self._integrator == "fixed_rank":
                with frozen_statistics(self._model), self._taped(self._replace()) as tapes:
                    passing()
                self._move(tapes)
                outcome = passing()
            else:
                with self._taped(augment if self._integrator == "bug" else augment_in_parallel) as tapes:
                    outcome = passing()
                self._move(tapes)
        except torch.OutOfMemoryError as error:
            raise TrialFailedError(f"memory of {inputs.device} exhausted at batch size {len(inputs)}") from error
        self._unscale()
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        self._optimizer.step()
        return outcome

    def _pass(self, inputs: Tensor, targets: Tensor, seed: int) -> Outcome:
        device, mixed = inputs.device, self._precision is not torch.float32
        self._optimizer.zero_grad()
        with random_state(seed, device), torch.autocast(device.type, self._precision, enabled=mixed):
            outputs = self._model(inputs)
            loss = self._loss(outputs, targets)
        (loss * self._scale).backward()  # type: ignore[no-untyped-call]
        right = (outputs.detach().argmax(1) == targets).float()
        correct = right.view(len(right), -1).mean(1).sum()
        # Read together and last: a GPU is waited for once.
        outcome = Outcome(*torch.stack([loss.detach(), correct.to(loss.dtype)]).tolist())
        if not math.isfinite(outcome.loss):
            raise TrialFailedError(f"loss is {outcome.loss}")
        return outcome

    def _replace(self) -> Integrate:
        step = self._optimizer.param_groups[0]["lr"] / self._scale
        return partial(replace_bases, step=step, clip=None if self._clip is None else self._clip * self._scale)

    def _unscale(self) -> None:
        if self._scale != 1:
            for parameter in self._model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= self._scale

    @contextmanager
    def _taped(self, integrate: Integrate) -> Iterator[dict[LowRankLayer, Tape]]:
        tapes = {layer: Tape(integrate) for layer in self._layers.values()}
        for layer, tape in tapes.items():
            layer.tape = tape
        try:
            yield tapes
        finally:
            for layer in tapes:
                layer.tape = None

    def _move(self, tapes: Mapping[LowRankLayer, Tape]) -> None:
        for layer, tape in tapes.items():
            if tape.move is not None:  # else the loss does not depend on the layer
                _apply(layer, tape.move, self._optimizer)


def _apply(layer: LowRankLayer, move: Move, optimizer: Optimizer) -> None:
    core = move.from_left @ layer.S.detach() @ move.from_right.mT
    if layer.S in optimizer.state:
        transport(optimizer.state[layer.S], move.from_left, move.from_right)
    layer.set_factors(move.left, core, move.right)
    layer.S.grad = move.gradient


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Let every batch norm normalise as in training without learning from it."""
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = not norm.training
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
