"""Throughput of a network beside that of the dense network it came from."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from lrsearch.measure.allocator import freed_memory_kept
from lrsearch.measure.modes import evaluation_mode

_BLOCK_SECONDS = 0.005
_WARM_UP_SHARE = 0.15
_FEWEST_PAIRS = 5


@dataclass(frozen=True)
class Throughput:
    """Two networks measured in the same breath.

    Attributes:
        images_per_second: of the network.
        dense_images_per_second: of the dense network beside it.
        speedup: median over the pairs of blocks of dense time / time.
        spread: median absolute deviation of those ratios.
    """

    images_per_second: float
    dense_images_per_second: float
    speedup: float
    spread: float


def measure_throughput(model: nn.Module, dense: nn.Module, inputs: Tensor, *, seconds: float = 2.0) -> Throughput:
    """Measure how many images per second each of two networks classifies.

    After a warm-up, short blocks of forward passes of the two alternate, in random order within each pair: a
    disturbance that outlasts a block hits both, one that does not hits few pairs, and the medians ignore it.
    The number of threads is the caller's; hold ``DeviceGate.measurement`` meanwhile.

    Args:
        model: the network, on the device of ``inputs``; measured in eval mode, left in its own.
        dense: the dense network, likewise; may be the same object.
        inputs: one batch, as deployed.
        seconds: wall time of the measurement; more only where five pairs of single passes take longer.
    """
    started = time.perf_counter()
    clock = _cuda_block if inputs.is_cuda else _cpu_block
    order = random.Random(0)  # noqa: S311 - decides an order, guards no secret
    with evaluation_mode(model, dense), torch.inference_mode(), freed_memory_kept():
        passes = {}
        for network in (model, dense):
            passes[network] = _warm_up(network, inputs, clock, seconds * _WARM_UP_SHARE)
        times: list[tuple[float, float]] = []
        while len(times) < _FEWEST_PAIRS or time.perf_counter() - started < seconds:
            pair = [model, dense]
            swapped = order.random() < 0.5
            if swapped:
                pair.reverse()
            first, second = (clock(network, inputs, passes[network]) / passes[network] for network in pair)
            times.append((second, first) if swapped else (first, second))
    ratios = [dense_time / model_time for model_time, dense_time in times]
    speedup = median(ratios)
    return Throughput(
        images_per_second=len(inputs) / median(model_time for model_time, _ in times),
        dense_images_per_second=len(inputs) / median(dense_time for _, dense_time in times),
        speedup=speedup,
        spread=median(abs(ratio - speedup) for ratio in ratios),
    )


def _warm_up(network: nn.Module, inputs: Tensor, clock: Callable[..., float], seconds: float) -> int:
    """Run the network for a while; returns how many passes make a block."""
    started = time.perf_counter()
    fastest = float("inf")
    while True:
        fastest = min(fastest, clock(network, inputs, 1))
        if time.perf_counter() - started >= seconds:
            return max(1, round(_BLOCK_SECONDS / fastest))


def _cpu_block(network: nn.Module, inputs: Tensor, passes: int) -> float:
    """Seconds that a number of forward passes take."""
    started = time.perf_counter()
    for _ in range(passes):
        network(inputs)
    return time.perf_counter() - started


def _cuda_block(network: nn.Module, inputs: Tensor, passes: int) -> float:
    """Seconds between two events on the GPU's own clock, with a number of forward passes between them."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(passes):
        network(inputs)
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1000
