"""Several things timed in the same breath: short blocks of each, in a random order every round."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from lrsearch.measure.allocator import freed_memory_kept

Run: TypeAlias = Callable[[], object]
"""One pass of what is timed."""


def interleaved(
    runs: Sequence[Run],
    device: torch.device,
    *,
    block_seconds: float,
    warm_up: float,
    rounds: int,
    seconds: float = 0,
    watch: Callable[[float], object] = lambda _: None,
) -> npt.NDArray[np.float64]:
    """Time each run in every round, after a warm-up.

    A disturbance that outlasts a block hits all runs of a round, one that does not hits few rounds: ratios within
    a round, and medians over rounds, ignore both. The number of threads is the caller's; hold
    ``DeviceGate.measurement`` meanwhile.

    Args:
        runs: what to time.
        device: where they run; on a GPU its own clock is read.
        block_seconds: as many passes make a block as fit into this time, one at least.
        warm_up: seconds that each run is repeated for before.
        rounds: at least so many.
        seconds: more rounds until this time has passed since the call.
        watch: told between rounds, outside what is timed, what share of them is over.

    Returns:
        (rounds, runs), seconds of one pass.
    """
    started = time.perf_counter()
    clock = _cuda_block if device.type == "cuda" else _cpu_block
    order = random.Random(0)  # noqa: S311 - decides an order, guards no secret
    turns = list(range(len(runs)))
    with freed_memory_kept():
        passes = [_passes(run, clock, block_seconds, warm_up) for run in runs]
        times: list[list[float]] = []
        while (share := _share(len(times), rounds, time.perf_counter() - started, seconds)) < 1:
            watch(share)
            order.shuffle(turns)
            taken = {turn: clock(runs[turn], passes[turn]) / passes[turn] for turn in turns}
            times.append([taken[turn] for turn in range(len(runs))])
    return np.array(times)


def _share(done: int, rounds: int, passed: float, seconds: float) -> float:
    """How much of a measurement is over that takes so many rounds and seconds at least."""
    return min(done / rounds, passed / seconds if seconds else 1.0)


def _passes(run: Run, clock: Callable[[Run, int], float], block_seconds: float, warm_up: float) -> int:
    """Repeat a run for a while; returns how many passes make a block."""
    started = time.perf_counter()
    fastest = float("inf")
    while True:
        fastest = min(fastest, clock(run, 1))
        if time.perf_counter() - started >= warm_up:
            return max(1, round(block_seconds / fastest))


def _cpu_block(run: Run, passes: int) -> float:
    """Seconds that a number of passes take."""
    started = time.perf_counter()
    for _ in range(passes):
        run()
    return time.perf_counter() - started


def _cuda_block(run: Run, passes: int) -> float:
    """Seconds between two events on the GPU's own clock, with a number of passes between them."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(passes):
        run()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1000
