"""From a budget for the whole network to caps for its layers, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from torch import nn

from lrsearch.allocate import Candidates, Rule, allocate
from lrsearch.errors import BudgetUnreachableError, LrsearchError
from lrsearch.factorize import LayerShape, layer_cost
from lrsearch.measure.cost import count_cost
from lrsearch.measure.latency import LatencyTable
from lrsearch.methods.base import Budget, Resource, Task
from lrsearch.recipe import Factorization

DENSE = Factorization(kind="dense")
_PICOSECONDS = 10**12


@dataclass(frozen=True)
class Cap:
    """The budget of one resource, applied to one network.

    Attributes:
        resource: what is capped.
        fraction: of the dense network's cost, that may be kept.
        total: what the dense network costs: parameters, FLOPs, or picoseconds of latency.
        fixed: the part of it that no layer's factorization changes (biases, batch norm, layers that stay dense).
            Of latency it can be negative, where layers alone take longer than together.
    """

    resource: Resource
    fraction: float
    total: int
    fixed: int

    @property
    def allowed(self) -> int:
        """The most that the whole network may cost."""
        return math.floor(Fraction(self.fraction) * self.total)

    def reaching(self, cost: int) -> float:
        """The smallest fraction that allows ``cost`` of the layers."""
        fraction = (self.fixed + cost) / self.total
        enough = Fraction(fraction) * self.total >= self.fixed + cost
        return fraction if enough else math.nextafter(fraction, math.inf)


@dataclass(frozen=True)
class Caps:
    """A whole budget, applied to one network.

    Attributes:
        caps: one for each resource of the budget.
        latencies: layer -> factorization -> picoseconds, of what is faster than the dense layer; None where latency
            is not capped.
    """

    caps: tuple[Cap, ...]
    latencies: Mapping[str, Mapping[Factorization, int]] | None = None

    @cached_property
    def sizes(self) -> list[int]:
        """Which of a layer's sizes are capped: 0 for parameters, 1 for multiply-adds."""
        return [("params", "flops").index(cap.resource) for cap in self.caps if cap.resource != "latency"]

    def allocate(
        self,
        layers: Sequence[Candidates],
        rule: Rule,
        *,
        n_seeds: int = 15,
        rng: np.random.Generator | None = None,
    ) -> list[int]:
        """``allocate`` within these caps.

        Raises:
            BudgetUnreachableError: with the fractions of the network that can be reached.
        """
        try:
            return allocate(layers, [cap.allowed - cap.fixed for cap in self.caps], rule, n_seeds=n_seeds, rng=rng)
        except BudgetUnreachableError as error:
            reached = [cap.reaching(int(cost)) for cap, cost in zip(self.caps, error.each, strict=True)]
            raise self._unreachable(reached) from error

    def verify(self, model: nn.Module, task: Task) -> None:
        """Count the compressed network's own parameters and FLOPs.

        Raises:
            LrsearchError: it exceeds the budget, because layers cost otherwise than their shapes say.
        """
        cost = count_cost(model, task.example_input)
        for cap in self.caps:
            counted = {"params": cost.params, "flops": cost.flops, "latency": 0}[cap.resource]
            if counted is None or counted > cap.allowed:
                raise LrsearchError(
                    f"the compressed network has {counted} {cap.resource}, more than the budget of "
                    f"{cap.allowed}: its layers are used in a way that cannot be predicted from their shapes"
                )

    def _unreachable(self, reached: Sequence[float]) -> BudgetUnreachableError:
        pairs = list(zip(self.caps, reached, strict=True))
        out = [(cap, fraction) for cap, fraction in pairs if cap.fraction < fraction] or pairs
        asked = " and ".join(f"budget.{cap.resource} is {cap.fraction:g}" for cap, _ in out)
        rounded = [f"{math.ceil(fraction * 10_000) / 10_000:g}" for _, fraction in out]
        smallest = f"the smallest fraction this method reaches on this network is {rounded[0]}"
        if len(out) > 1:
            each = ", ".join(f"{cap.resource} {value}" for (cap, _), value in zip(out, rounded, strict=True))
            smallest = f"the smallest fractions this method reaches on this network, each alone, are {each}"
        return BudgetUnreachableError(f"{asked}, but {smallest}", out[0][1], reached)


def make_caps(model: nn.Module, layers: Mapping[str, LayerShape], budget: Budget, task: Task) -> Caps:
    """Measure the dense network and split its cost into layers and the rest.

    Raises:
        LrsearchError: the budget is in FLOPs and the task has no example input, or in latency without a table.
    """
    fractions = budget.fractions
    if "flops" in fractions and task.example_input is None:
        raise LrsearchError("budget.flops needs an example input (or data) to count FLOPs with, got none")
    latencies = _latencies(task.latencies) if "latency" in fractions else None
    cost = count_cost(model, task.example_input if "flops" in fractions else None)
    dense = [layer_cost(shape, DENSE) for shape in layers.values()]
    caps = []
    for resource, fraction in fractions.items():
        if resource == "latency":
            total = _picoseconds(task.latencies.network) if task.latencies else 0
            compressible = sum(times[DENSE] for name, times in (latencies or {}).items() if name in layers)
        elif resource == "flops":
            total, compressible = cost.flops or 0, sum(2 * (each.macs or 0) for each in dense)
        else:
            total, compressible = cost.params, sum(each.params for each in dense)
        caps.append(Cap(resource, fraction, total, total - compressible))
    return Caps(tuple(caps), latencies)


def _latencies(table: LatencyTable | None) -> dict[str, dict[Factorization, int]]:
    if table is None:
        raise LrsearchError("budget.latency needs measured times of the network's layers, got none")
    found = {}
    for name, times in table.layers.items():
        exact = {factorization: _picoseconds(seconds) for factorization, seconds in times.items()}
        found[name] = {key: time for key, time in exact.items() if key == DENSE or time < exact[DENSE]}
    return found


def _picoseconds(seconds: float) -> int:
    """Whole numbers, so that sums are exact; rounded up, so that a cap is kept."""
    return math.ceil(seconds * _PICOSECONDS)
