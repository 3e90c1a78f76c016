"""Devices whose layers take a time that follows from their shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lrsearch.factorize import build_layer, find_layers
from lrsearch.measure.latency import LatencyTable, Timing
from lrsearch.recipe import Factorization


class Steps(LatencyTable):
    """Works on 16 channels at once: a layer takes as long as its rank rounded up; the dense one 100."""

    dense = 100.0

    def shares(self, model: nn.Module, layers: Sequence[str], example_input: torch.Tensor) -> dict[str, float]:
        return dict.fromkeys(layers, 0.8 / len(layers))

    def timings(self, layer: nn.Module, calls: Any, factorizations: Sequence[Factorization]) -> list[Timing]:
        return [Timing(self._time(each), 0.1) for each in factorizations]

    def _time(self, factorization: Factorization) -> float:
        return self.dense if factorization.kind == "dense" else 16.0 * -(-factorization.ranks[0] // 16)


class PerWeight(LatencyTable):
    """A network takes a second for each of its parameters; together they take ``overhead`` times as long as alone."""

    def __init__(self, overhead: float = 1.0) -> None:
        super().__init__()
        self.overhead = overhead

    def shares(self, model: nn.Module, layers: Sequence[str], example_input: torch.Tensor) -> dict[str, float]:
        return {name: _size(model.get_submodule(name)) / _size(model) for name in layers}

    def timings(self, layer: nn.Module, calls: Any, factorizations: Sequence[Factorization]) -> list[Timing]:
        return [Timing(_size(build_layer(layer, each)), 0) for each in factorizations]

    def speedup(self, model: nn.Module, dense: nn.Module, example_input: torch.Tensor) -> float:
        return _size(dense) / _size(model) / self.overhead


def predicted(model: nn.Module, chosen: Mapping[str, Factorization], example_input: torch.Tensor) -> float:
    """The fraction of the dense time that ``PerWeight`` predicts."""
    saved = 0
    for name in find_layers(model, example_input)[0]:
        layer = model.get_submodule(name)
        saved += _size(layer) - _size(build_layer(layer, chosen[name]))
    return 1 - saved / _size(model)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
