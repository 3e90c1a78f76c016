"""From a budget for the whole network to caps for its layers, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from torch import nn

from lrsearch.allocate import Candidates, Rule, allocate
from lrsearch.errors import BudgetUnreachableError, LrsearchError
from lrsearch.factorize import LayerShape, layer_cost
from lrsearch.measure.cost import count_cost
from lrsearch.methods.base import Budget, Resource, Task
from lrsearch.methods.one_shot.timed import DENSE, TimedLayers
from lrsearch.recipe import Factorization

_LATENCY_UNITS = 10**12


@dataclass(frozen=True)
class Cap:
    """The budget of one resource, applied to one network.

    Attributes:
        resource: what is capped.
        fraction: of the dense network's cost, that may be kept.
        total: what the dense network costs: parameters, FLOPs, or 10^12 of latency.
        fixed: the part of it that no layer's factorization changes (biases, batch norm, layers that stay dense).
            Of latency it can be negative, where layers alone take longer than together.
    """

    resource: Resource
    fraction: float
    total: int
    fixed: int
    excess: float = 1.0
    """How many times costlier networks turned out than the sum of their layers."""

    @property
    def allowed(self) -> int:
        """The most that the whole network may cost."""
        return math.floor(Fraction(self.fraction) * self.total / Fraction(self.excess))

    def reaching(self, cost: int) -> float:
        """The smallest fraction that allows ``cost`` of the layers."""
        needed = (self.fixed + cost) * Fraction(self.excess)
        fraction = float(needed / self.total)
        enough = Fraction(fraction) * self.total >= needed
        return fraction if enough else math.nextafter(fraction, math.inf)


@dataclass(frozen=True)
class Caps:
    """A whole budget, applied to one network.

    Attributes:
        caps: one for each resource of the budget.
        timed: the layers' times; None where latency is not capped.
    """

    caps: tuple[Cap, ...]
    timed: TimedLayers | None = None

    @cached_property
    def sizes(self) -> list[int]:
        """Which of a layer's sizes are capped: 0 for parameters, 1 for multiply-adds."""
        return [("params", "flops").index(cap.resource) for cap in self.caps if cap.resource != "latency"]

    def latencies(self, name: str, factorizations: Sequence[Factorization]) -> list[int]:
        """What a layer takes under each factorization, in the unit of the cap."""
        assert self.timed is not None  # noqa: S101 - asked only where latency is capped
        return [_units(fraction) for fraction in self.timed.fractions(name, factorizations)]

    def corrected(self, chosen: Mapping[str, Factorization]) -> Caps | None:
        """Tighter caps where a network with these layers is measured to take longer than allowed; None elsewhere."""
        if self.timed is None:
            return None
        cap = next(cap for cap in self.caps if cap.resource == "latency")
        measured = self.timed.measured_fraction(chosen)
        if measured <= cap.fraction:
            return None
        promised = 1 / self.timed.predicted_speedup(chosen)
        tighter = replace(cap, excess=max(measured / promised, cap.excess * measured / cap.fraction))
        return replace(self, caps=tuple(tighter if each is cap else each for each in self.caps))

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
            raise unreachable(self.caps, [int(cost) for cost in error.each]) from error

    def verify(self, model: nn.Module, task: Task) -> None:
        """Count the compressed network's own parameters and FLOPs.

        Raises:
            LrsearchError: it exceeds the budget, because layers cost otherwise than their shapes say.
        """
        flops_count = any(cap.resource == "flops" for cap in self.caps)
        cost = count_cost(model, task.example_input if flops_count else None)
        for cap in self.caps:
            counted = {"params": cost.params, "flops": cost.flops or 0, "latency": 0}[cap.resource]
            if counted > cap.allowed:
                raise LrsearchError(
                    f"the compressed network has {counted} {cap.resource}, more than the budget of "
                    f"{cap.allowed}: its layers are used in a way that cannot be predicted from their shapes"
                )


def make_caps(model: nn.Module, layers: Mapping[str, LayerShape], budget: Budget, task: Task) -> Caps:
    """Measure the dense network and split its cost into layers and the rest.

    Raises:
        LrsearchError: the budget is in FLOPs or latency and the task has no example input.
    """
    fractions = budget.fractions
    if "flops" in fractions and task.example_input is None:
        raise LrsearchError("budget.flops needs an example input (or data) to count FLOPs with, got none")
    timed = TimedLayers(model, layers, task, "budget.latency") if "latency" in fractions else None
    cost = count_cost(model, task.example_input if "flops" in fractions else None)
    dense = [layer_cost(shape, DENSE) for shape in layers.values()]
    caps = []
    for resource, fraction in fractions.items():
        if timed is not None and resource == "latency":
            total, compressible = _units(1), sum(_units(timed.fractions(name, [DENSE])[0]) for name in layers)
        elif resource == "flops":
            total, compressible = cost.flops or 0, sum(2 * (each.macs or 0) for each in dense)
        else:
            total, compressible = cost.params, sum(each.params for each in dense)
        caps.append(Cap(resource, fraction, total, total - compressible))
    return Caps(tuple(caps), timed)


def _units(fraction: float) -> int:
    """A fraction of the dense network's time as a whole number, so that sums are exact; rounded up."""
    return math.ceil(fraction * _LATENCY_UNITS)


def unreachable(caps: Sequence[Cap], smallest: Sequence[int]) -> BudgetUnreachableError:
    """The error that says what can be reached, from the smallest cost of the layers for each cap."""
    reached = [cap.reaching(cost) for cap, cost in zip(caps, smallest, strict=True)]
    pairs = list(zip(caps, reached, strict=True))
    out = [(cap, fraction) for cap, fraction in pairs if cap.fraction < fraction] or pairs
    asked = " and ".join(f"budget.{cap.resource} is {cap.fraction:g}" for cap, _ in out)
    rounded = [f"{math.ceil(fraction * 10_000) / 10_000:g}" for _, fraction in out]
    text = f"the smallest fraction this method reaches on this network is {rounded[0]}"
    if len(out) > 1:
        each = ", ".join(f"{cap.resource} {value}" for (cap, _), value in zip(out, rounded, strict=True))
        text = f"the smallest fractions this method reaches on this network, each alone, are {each}"
    return BudgetUnreachableError(f"{asked}, but {text}", out[0][1], reached)
