"""Speed of training steps of a network beside those of the dense network it came from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lrsearch.measure.interleave import interleaved
from lrsearch.measure.throughput import Throughput, summarise

_WARM_UP_SHARE = 0.15
_FEWEST_PAIRS = 5


def measure_training(
    model: nn.Module, dense: nn.Module, inputs: Tensor, *, frozen: Collection[str] = (), seconds: float = 2.0
) -> Throughput:
    """Measure how many images per second each of two networks trains on: forward, backward and a step of SGD.

    Copies are trained, at a learning rate of 0; both networks are left as they are.

    Args:
        model: the network, on the device of ``inputs``.
        dense: the dense network, likewise.
        inputs: one batch, of two images at least, as batch norms in training need.
        frozen: parameters of ``model`` that are fixed, so that their gradients are not computed.
        seconds: wall time of the measurement; more only where five pairs of single steps take longer.
    """
    devices = [inputs.device] if inputs.is_cuda else []
    with torch.random.fork_rng(devices):
        times = interleaved(
            [training_step(model, inputs, frozen), training_step(dense, inputs)],
            inputs.device,
            block_seconds=0,
            warm_up=seconds * _WARM_UP_SHARE,
            rounds=_FEWEST_PAIRS,
            seconds=seconds,
        )
    return summarise(len(inputs), times)


def training_step(network: nn.Module, inputs: Tensor, frozen: Collection[str] = ()) -> Callable[[], None]:
    """A step of SGD on a copy of a network, to be run again and again; some parameters may be frozen."""
    trained = copy.deepcopy(network).train()
    for name in frozen:
        trained.get_parameter(name).requires_grad_(False)
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        logits = trained(inputs)
        cross_entropy(logits, any_targets(logits)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def any_targets(logits: Tensor) -> Tensor:
    """Class 0 for each of the answers in (N, classes, ...) logits, of shape (N, ...): time does not depend on it."""
    return torch.zeros_like(logits[:, 0], dtype=torch.long)
