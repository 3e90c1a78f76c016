"""The shape that filter-pruning methods share: how much each channel matters x how many are left where.

A method is a subclass that says both. How many are left grows in every layer with one number, so that the network
that just keeps the budget is found by bisection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import find_layers
from lrsearch.measure.cost import count_cost
from lrsearch.methods import base
from lrsearch.methods.base import Budget, Compressed, Progress, Task
from lrsearch.methods.one_shot.apply import finite_weight
from lrsearch.methods.one_shot.candidates import CHOSEN
from lrsearch.methods.one_shot.cap import make_caps, unreachable
from lrsearch.methods.one_shot.spectral import BudgetHyperparameters
from lrsearch.methods.pruning.channels import Coupled, find_coupled, smaller_layers, without
from lrsearch.recipe import Factorization, Recipe

_HALVINGS = 20
_FIXED = "none of its channels can be removed"


class Filters(base.Method, ABC):
    """Removes filters, and with them the channels that other layers would read."""

    name: ClassVar[str]
    Hyperparameters: ClassVar[type[base.Hyperparameters]] = BudgetHyperparameters

    @abstractmethod
    def scores(self, model: nn.Module, coupled: Coupled, statistics: Mapping[str, Tensor]) -> Tensor:
        """(units,): how much each matters; the smallest go first."""

    @abstractmethod
    def left(self, scores: Tensor, size: float) -> int:
        """How many units are left, from 1 at ``size`` 0 to all of them at 1, never falling."""

    def compress(
        self, model: nn.Module, task: Task, hyperparameters: BudgetHyperparameters, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Find the size that keeps the budget, then the filters that still fit one by one.

        Raises:
            BudgetUnreachableError: the budget is smaller than one channel everywhere would keep.
            LrsearchError: there is no example input, the network cannot be traced, or a weight is not finite.
        """
        self._check_input(task, *hyperparameters.budget.fractions)
        layers, dense = find_layers(model, task.example_input)
        for name in layers:
            finite_weight(model, name)
        pruning = _Pruning(self, model, task, hyperparameters.budget, statistics)
        pruning.check_reachable()
        low, high = 0.0, 1.0
        for halving in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if pruning.fits(pruning.counts(middle)) else (low, middle)
            yield Progress(halving + 1, _HALVINGS + 1)
        whole = pruning.counts(1.0)
        counts = whole if pruning.fits(whole) else pruning.filled(pruning.counts(low), pruning.counts(high))
        network = pruning.network(counts)
        yield Progress(_HALVINGS + 1, _HALVINGS + 1)
        return Compressed(network, self._recipe(model, network, task, dense | pruning.fixed(layers)))

    def apply_recipe(
        self, model: nn.Module, task: Task, recipe: Recipe, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Leave as many filters as the recipe says, those that matter most in ``model``.

        Raises:
            LrsearchError: there is no example input, or the network cannot have as many channels as the recipe says.
        """
        self._check_input(task, "params")
        pruning = _Pruning(self, model, task, Budget(params=1.0), statistics)
        network = pruning.network(pruning.recorded(recipe))
        yield Progress(1, 1)
        if smaller_layers(model, network) != {n: each for n, each in recipe.layers.items() if each.kind == "pruned"}:
            raise LrsearchError("the recipe does not fit the network: other channels go together in it")
        return Compressed(network, recipe.model_copy(update={"architecture": task.architecture}))

    def _check_input(self, task: Task, *resources: str) -> None:
        if task.example_input is None:
            raise LrsearchError(
                f"{self.name} needs an example input (or data) to trace the network with, got none"
                if "flops" not in resources
                else "budget.flops needs an example input (or data) to count FLOPs with, got none"
            )

    def _recipe(self, model: nn.Module, network: nn.Module, task: Task, dense: Mapping[str, str]) -> Recipe:
        smaller = smaller_layers(model, network)
        layers = {}
        for name, module in model.named_modules():
            if name in smaller:
                layers[name] = smaller[name]
            elif isinstance(module, nn.Conv2d | nn.Linear):
                layers[name] = Factorization(kind="dense", reason=dense.get(name, CHOSEN))
        return Recipe(architecture=task.architecture, method=self.name, layers=layers)


class _Pruning:
    """One network and one budget; ``counts`` are the units left of each group of coupled channels."""

    def __init__(
        self, method: Filters, model: nn.Module, task: Task, budget: Budget, statistics: Mapping[str, Tensor]
    ) -> None:
        assert task.example_input is not None  # noqa: S101 - the caller has checked
        self._method, self._model, self._example = method, model, task.example_input
        if "latency" in budget.fractions:
            raise LrsearchError("budget.latency is for factorized layers, expected params or flops of pruned networks")
        self._caps = make_caps(model, {}, budget, task).caps
        self._coupled = find_coupled(model, self._example)
        self._scores = [method.scores(model, each, statistics) for each in self._coupled]
        self._removable = [each.removable(scores) for each, scores in zip(self._coupled, self._scores, strict=True)]
        self._known: dict[tuple[int, ...], list[int]] = {}

    def fixed(self, layers: Iterable[str]) -> dict[str, str]:
        """Why layers stay dense that have no channels to lose."""
        some = {name for each in self._coupled for name in (*each.producers, *each.consumers)}
        return {name: _FIXED for name in layers if name not in some}

    def counts(self, size: float) -> list[int]:
        """What is left of each group at a size, at least what cannot be removed."""
        pairs = zip(self._scores, self._removable, strict=True)
        return [max(self._method.left(scores, size), len(scores) - len(removable)) for scores, removable in pairs]

    def recorded(self, recipe: Recipe) -> list[int]:
        """What a recipe leaves of each group."""
        layers = [recipe.layers.get(each.root) for each in self._coupled]
        return [
            layer.ranks[-1] // each.together if layer and layer.kind == "pruned" else each.units
            for layer, each in zip(layers, self._coupled, strict=True)
        ]

    def network(self, counts: Sequence[int]) -> nn.Module:
        removed = {
            coupled.root: coupled.channels(removable[: coupled.units - count])
            for coupled, removable, count in zip(self._coupled, self._removable, counts, strict=True)
        }
        return without(self._model, self._example, removed)

    def costs(self, counts: Sequence[int]) -> list[int]:
        """In the unit of each cap."""
        key = tuple(counts)
        if key not in self._known:
            cost = count_cost(self.network(counts), self._example)
            self._known[key] = [cost.params if cap.resource == "params" else cost.flops or 0 for cap in self._caps]
        return self._known[key]

    def fits(self, counts: Sequence[int]) -> bool:
        return all(cost <= cap.allowed for cost, cap in zip(self.costs(counts), self._caps, strict=True))

    def filled(self, counts: list[int], limits: list[int]) -> list[int]:
        """Further units, up to the limits, as long as they fit."""
        for position, limit in enumerate(limits):
            while counts[position] < limit:
                more = [*counts[:position], counts[position] + 1, *counts[position + 1 :]]
                if not self.fits(more):
                    break
                counts = more
        return counts

    def check_reachable(self) -> None:
        smallest = self.counts(0.0)
        if not self.fits(smallest):
            costs = zip(self.costs(smallest), self._caps, strict=True)
            raise unreachable(self._caps, [cost - cap.fixed for cost, cap in costs])
