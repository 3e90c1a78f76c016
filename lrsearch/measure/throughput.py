"""Throughput of a network beside that of the dense network it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lrsearch.measure.interleave import interleaved
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
        reference_speedup: images per second over those of the reference, the dense network unless there is another.
    """

    images_per_second: float
    dense_images_per_second: float
    speedup: float
    spread: float
    reference_speedup: float


def measure_throughput(
    model: nn.Module,
    dense: nn.Module,
    inputs: Tensor,
    *,
    seconds: float = 2.0,
    reference: tuple[nn.Module, Tensor] | None = None,
    watch: Callable[[float], object] = lambda _: None,
) -> Throughput:
    """Measure how many images per second each of two networks classifies.

    Blocks of forward passes of the two alternate, as ``interleaved`` says.

    Args:
        model: the network, on the device of ``inputs``; measured in eval mode, left in its own.
        dense: the dense network, likewise; may be the same object.
        inputs: one batch, as deployed.
        seconds: wall time of the measurement; more only where five pairs of single passes take longer.
        reference: another network with a batch of its own, measured in the same rounds.
        watch: told between rounds what share of the measurement is over.
    """
    third = [reference] if reference else []
    runs = [(model, inputs), (dense, inputs), *third]
    with evaluation_mode(*(network for network, _ in runs)), torch.inference_mode():
        times = interleaved(
            [partial(network, batch) for network, batch in runs],
            inputs.device,
            block_seconds=_BLOCK_SECONDS,
            warm_up=seconds * _WARM_UP_SHARE,
            rounds=_FEWEST_PAIRS,
            seconds=seconds,
            watch=watch,
        )
    if reference is not None:
        times[:, 2] *= len(inputs) / len(reference[1])
    return summarise(len(inputs), times)


def summarise(images: int, times: npt.NDArray[np.float64]) -> Throughput:
    """From the times (rounds, 2 or 3) of a network, the dense one and a reference to a comparison.

    ``images`` are those of each pass.
    """
    ratios = times[:, 1] / times[:, 0]
    speedup = np.median(ratios)
    return Throughput(
        images_per_second=float(images / np.median(times[:, 0])),
        dense_images_per_second=float(images / np.median(times[:, 1])),
        speedup=float(speedup),
        spread=float(np.median(abs(ratios - speedup))),
        reference_speedup=float(np.median(times[:, -1] / times[:, 0])) if times.shape[1] > 2 else float(speedup),
    )
