"""How much faster a training step is at low rank."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lrsearch.training import TrainingConfig
from lrsearch.training.dlrt import AUGMENTING, Integrator, LowRankLayer, Stepper, truncate
from lrsearch.training.optimizer import build_optimizer

_PAIRS = 3


def step_speedup(
    network: nn.Module, dense: nn.Module, names: Sequence[str], integrator: Integrator, batch: tuple[Tensor, Tensor]
) -> float:
    """Time of a plain training step of ``dense`` over that of a low-rank step with its truncation, both with SGD.

    The median over pairs of steps, one right after the other, on copies; the first pair warms up.

    Args:
        network: with low-rank layers.
        dense: the network it came from.
        names: of the low-rank layers.
        integrator: of the step.
        batch: (inputs, targets), on the device of both.
    """
    network, dense = (copy.deepcopy(each).train() for each in (network, dense))
    config = TrainingConfig(lr=1e-6, weight_decay=0, momentum=0)
    layers = {name: layer for name in names if isinstance(layer := network.get_submodule(name), LowRankLayer)}
    ranks = {name: layer.rank for name, layer in layers.items()}
    optimizers = [build_optimizer(each, config) for each in (network, dense)]
    stepper = Stepper(network, layers, optimizers[0], integrator, cross_entropy)

    def low_rank_step() -> None:
        stepper.step(*batch, seed=0)
        if integrator in AUGMENTING:
            truncate(layers, lambda _: ranks, optimizers[0].state)

    def dense_step() -> None:
        optimizers[1].zero_grad()
        cross_entropy(dense(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
        optimizers[1].step()

    with torch.random.fork_rng(devices=[batch[0].device] if batch[0].is_cuda else []):
        ratios = [_seconds(dense_step, batch[0]) / _seconds(low_rank_step, batch[0]) for _ in range(_PAIRS + 1)]
    return median(ratios[1:])


def _seconds(step: Callable[[], None], inputs: Tensor) -> float:
    started = time.perf_counter()
    step()
    if inputs.is_cuda:
        torch.cuda.synchronize(inputs.device)
    return time.perf_counter() - started
