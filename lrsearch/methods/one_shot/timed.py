"""Factorizations chosen by the time that they take, and what a network of them is predicted to take.

Source: rank optimisation of Hajimolahoseini et al., "Accelerating the Low-Rank Decomposed Models" (2024). Its Algorithm
1 follows the differences of single times, thus noise; here ranks are weighed by an isotonic fit of medians.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import LayerShape, build_layer, copy_with
from lrsearch.measure.latency import Timing
from lrsearch.methods.base import Task
from lrsearch.recipe import Factorization

DENSE = Factorization(kind="dense")
NOT_FASTER = "no rank near the one asked for makes it faster"
_PLATEAU = 0.03


class TimedLayers:
    """The layers of a network with a way to time them.

    Args:
        model: the dense network.
        layers: name -> shape.
        task: gives the table of times and an example input.
        asked_by: the hyperparameter that needs them, for the error.

    Raises:
        LrsearchError: the task has no example input.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, LayerShape], task: Task, asked_by: str) -> None:
        if task.example_input is None:
            raise LrsearchError(f"{asked_by} needs an example input (or data) to measure time with, got none")
        self._model, self._layers, self._table = model, layers, task.latency
        self.tile = _tile(task)
        self._example_input = task.example_input
        self._shares = task.latency.shares(model, list(layers), task.example_input)

    def fractions(self, name: str, factorizations: Sequence[Factorization]) -> list[float]:
        """What a layer takes under each factorization, as fractions of the time of the dense network."""
        dense, *times = self._timings(name, [DENSE, *factorizations])
        return [self._shares[name] * time.median / dense.median for time in times]

    def faster(self, name: str, wanted: int, members: Mapping[int, Factorization]) -> Factorization:
        """The largest rank as fast as the multiple of the tile below the wanted one; dense if it is not faster.

        Args:
            name: of the layer.
            wanted: a rank.
            members: rank -> factorization, the wanted one and those ``near`` it.
        """
        ranks = sorted(members)
        dense, *times = self._timings(name, [DENSE, *(members[rank] for rank in ranks)])
        step = max((rank for rank in ranks if rank <= wanted and rank % self.tile == 0), default=wanted)
        best = largest_on_plateau([time.median for time in times], ranks.index(step))
        if clearly_less(times[best], dense):
            return members[ranks[best]]
        return Factorization(kind="dense", reason=NOT_FASTER)

    def predicted_speedup(self, chosen: Mapping[str, Factorization]) -> float:
        """Dense time over the time of a network with these layers, all else unchanged."""
        saved = sum(self._shares[name] - self.fractions(name, [each])[0] for name, each in chosen.items())
        return 1 / (1 - saved)

    def measured_fraction(self, chosen: Mapping[str, Factorization]) -> float:
        """The time of a network with these layers, whatever their weights, over that of the dense one, measured."""
        layers = {name: build_layer(self._model.get_submodule(name), each) for name, each in chosen.items()}
        for parameter in (parameter for layer in layers.values() for parameter in layer.parameters()):
            parameter.data = torch.full_like(parameter, 0.01)
        replaced = {name: layer for name, layer in layers.items() if chosen[name].kind != "dense"}
        return 1 / self._table.speedup(copy_with(self._model, replaced), self._model, self._example_input)

    def _timings(self, name: str, factorizations: Sequence[Factorization]) -> list[Timing]:
        calls = self._layers[name].calls or ()
        return self._table.timings(self._model.get_submodule(name), calls, factorizations)


def near(rank: int, tile: int, largest: int) -> list[int]:
    """A rank and the multiples of a tile less than two tiles from it, up to the largest rank allowed."""
    multiples = range(tile * max(1, rank // tile - 1), rank + 2 * tile, tile)
    return sorted({rank, *(multiple for multiple in multiples if multiple <= largest)})


def _tile(task: Task) -> int:
    """The number of channels that the device works on at once, whose multiples suit it."""
    deployment = task.latency.deployment
    if task.device.type == "cuda":
        return 32 if deployment.channels_last else 8
    lanes = {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 4)
    return lanes if deployment.dtype == "float32" else 2 * lanes


def largest_on_plateau(times: Sequence[float], step: int) -> int:
    """Index of the last of ascending ranks that takes no longer than the one at index ``step``, give or take noise."""
    fitted = isotonic(np.asarray(times))
    return int(np.flatnonzero(fitted <= (1 + _PLATEAU) * fitted[step])[-1])


def clearly_less(time: Timing, other: Timing) -> bool:
    """Whether a time is shorter by more than both spreads explain."""
    return time.median + 2 * time.deviation < other.median - 2 * other.deviation


def isotonic(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The rising sequence closest to the values in least squares (min-max formula; Robertson et al. 1988, 1.4)."""
    n = len(values)
    means = np.array([[values[i : j + 1].mean() if i <= j else np.inf for j in range(n)] for i in range(n)])
    return np.array([max(means[i, k:].min() for i in range(k + 1)) for k in range(n)])
