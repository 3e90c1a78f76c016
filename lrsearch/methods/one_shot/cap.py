"""From a budget for the whole network to a cap for its layers, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch import nn

from lrsearch.allocate import Candidates, Rule, allocate
from lrsearch.errors import BudgetUnreachableError, LrsearchError
from lrsearch.factorize import LayerCost, LayerShape, layer_cost
from lrsearch.measure.cost import count_cost
from lrsearch.methods.base import Budget, Task
from lrsearch.recipe import Factorization

DENSE = Factorization(kind="dense")


@dataclass(frozen=True)
class Cap:
    """A budget applied to one network.

    Attributes:
        budget: what was asked for.
        total: what the dense network costs in the budget's unit, parameters or FLOPs.
        fixed: the part of it that no layer's factorization changes (biases, batch norm, layers that stay dense).
    """

    budget: Budget
    total: int
    fixed: int

    @property
    def allowed(self) -> int:
        """The most that the whole network may cost."""
        return math.floor(Fraction(self.budget.fraction) * self.total)

    def unit(self, cost: LayerCost) -> int:
        """A layer's cost in the budget's unit."""
        return cost.params if self.budget.resource == "params" else 2 * (cost.macs or 0)

    def allocate(
        self,
        layers: Sequence[Candidates],
        rule: Rule,
        *,
        n_seeds: int = 15,
        rng: np.random.Generator | None = None,
    ) -> list[int]:
        """``allocate`` within this cap.

        Raises:
            BudgetUnreachableError: ``smallest`` is the fraction of the network that can be reached.
        """
        try:
            return allocate(layers, self.allowed - self.fixed, rule, n_seeds=n_seeds, rng=rng)
        except BudgetUnreachableError as error:
            smallest = self._fraction(self.fixed + int(error.smallest))
            rounded_up = math.ceil(smallest * 10_000) / 10_000
            raise BudgetUnreachableError(
                f"budget.{self.budget.resource} is {self.budget.fraction:g}, "
                f"but the smallest fraction this method reaches on this network is {rounded_up:g}",
                smallest,
            ) from error

    def _fraction(self, cost: int) -> float:
        """The smallest budget that allows ``cost``."""
        fraction = cost / self.total
        return fraction if Fraction(fraction) * self.total >= cost else math.nextafter(fraction, math.inf)

    def verify(self, model: nn.Module, task: Task) -> None:
        """Measure the compressed network itself.

        Raises:
            LrsearchError: it exceeds the budget, because layers cost otherwise than their shapes say.
        """
        cost = count_cost(model, task.example_input)
        measured = cost.params if self.budget.resource == "params" else cost.flops
        if measured is None or measured > self.allowed:
            raise LrsearchError(
                f"the compressed network has {measured} {self.budget.resource}, more than the budget of "
                f"{self.allowed}: its layers are used in a way that cannot be predicted from their shapes"
            )


def make_cap(model: nn.Module, layers: Mapping[str, LayerShape], budget: Budget, task: Task) -> Cap:
    """Measure the dense network and split its cost into layers and the rest.

    Raises:
        LrsearchError: the budget is in FLOPs and the task has no example input.
    """
    if budget.resource == "flops" and task.example_input is None:
        raise LrsearchError("budget.flops needs an example input (or data) to count FLOPs with, got none")
    cost = count_cost(model, task.example_input if budget.resource == "flops" else None)
    total = cost.params if cost.flops is None else cost.flops
    cap = Cap(budget, total, 0)
    compressible = sum(cap.unit(layer_cost(shape, DENSE)) for shape in layers.values())
    return Cap(budget, total, total - compressible)
