"""How much faster a training step is at low rank."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lrsearch.measure.interleave import interleaved
from lrsearch.measure.modes import evaluation_mode
from lrsearch.measure.throughput import summarise
from lrsearch.measure.training_speed import any_targets, training_step
from lrsearch.training import TrainingConfig
from lrsearch.training.dlrt import AUGMENTING, Integrator, LowRankLayer, Stepper, truncate
from lrsearch.training.optimizer import build_optimizer

_ROUNDS = 5


def step_speedup(
    network: nn.Module, dense: nn.Module, names: Sequence[str], integrator: Integrator, inputs: Tensor
) -> float:
    """Time of a training step of ``dense`` over that of a low-rank step with its truncation, both with SGD.

    Taken as ``interleaved`` says, on copies; the device should be free of other work.

    Args:
        network: with low-rank layers.
        dense: the network it came from.
        names: of the low-rank layers.
        integrator: of the step.
        inputs: a batch, on the device of both.
    """
    network = copy.deepcopy(network).train()
    layers = {name: layer for name in names if isinstance(layer := network.get_submodule(name), LowRankLayer)}
    ranks = {name: layer.rank for name, layer in layers.items()}
    optimizer = build_optimizer(network, TrainingConfig(lr=1e-6, weight_decay=0))  # at 0 bases would not grow
    stepper = Stepper(network, layers, optimizer, integrator, cross_entropy)
    with evaluation_mode(network), torch.no_grad():
        targets = any_targets(network(inputs))

    def low_rank_step() -> None:
        stepper.step(inputs, targets, seed=0)
        if integrator in AUGMENTING:
            truncate(layers, lambda _: ranks, optimizer.state)

    with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
        runs = [low_rank_step, training_step(dense, inputs)]
        times = interleaved(runs, inputs.device, block_seconds=0, warm_up=0, rounds=_ROUNDS)
    return summarise(len(inputs), times).speedup
