"""What a compression method is, seen from outside."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from lrsearch.data import Splits
from lrsearch.distributions import Choice, Distribution, Uniform
from lrsearch.measure.latency import LatencyTable
from lrsearch.recipe import Recipe
from lrsearch.shared_tensors import SharedTensors
from lrsearch.training import Retraining

Loader = Iterable[tuple[Tensor, Tensor]]
"""Batches of (inputs, targets) that can be iterated again and again, such as a DataLoader."""


Resource: TypeAlias = Literal["params", "flops", "latency"]


class Budget(BaseModel):
    """The fractions of the dense network's parameters, FLOPs and latency that the compressed network may keep."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    params: Annotated[float, Field(gt=0, le=1)] | None = None
    flops: Annotated[float, Field(gt=0, le=1)] | None = None
    latency: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of the measured time; predicted from the task's table of layers measured alone."""

    @model_validator(mode="after")
    def _some_resource(self) -> Budget:
        if not self.fractions:
            raise ValueError("expected at least one of params, flops and latency")
        return self

    @property
    def fractions(self) -> dict[Resource, float]:
        """The fraction of each resource that is capped."""
        asked: dict[Resource, float | None] = {"params": self.params, "flops": self.flops, "latency": self.latency}
        return {resource: fraction for resource, fraction in asked.items() if fraction is not None}


@dataclass(frozen=True)
class Search:
    """Metadata of a hyperparameter: what a search draws it from when the space file leaves it open.

    ``distribution`` is a distribution, or a mapping of them for a nested value such as ``budget``.
    """

    distribution: Distribution | Mapping[str, Any]


class Hyperparameters(BaseModel):
    """The fields every method has; a method adds its own, with ``Search`` metadata where a search may vary them."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    budget: Annotated[Budget | None, Search({"params": Uniform(0.1, 0.8)})] = None
    """What the compressed network may keep; None where the method has another knob that sets its size."""
    recalibrate: Annotated[bool, Search(Choice((True,)))] = True
    """Re-estimate batch-norm statistics on the calibration inputs after compressing (no labels needed)."""


@dataclass(frozen=True)
class Task:
    """What a method may know beside the network and its own hyperparameters."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    """On the CPU; the one source of randomness, so that a trial is reproducible."""
    example_input: Tensor | None = None
    """A batch of one input, on ``device``; None where the caller has none (FLOPs are then unknown)."""
    calibration: Loader | None = None
    """What data-aware methods look at; never the validation or test split."""
    splits: Splits | None = None
    """The data that methods train on which train; they never look at its validation or test split."""
    checkpoint: Path | None = None
    """Where a long compression keeps what it needs to go on after its process was killed, atomically and readable
    with ``weights_only``: run again, it must end as if it had never stopped. The caller deletes it afterwards."""
    architecture: dict[str, Any] | None = None
    """Goes into the recipe."""
    latency: LatencyTable = field(default_factory=LatencyTable)
    """What layers take on ``device``, measured as the network is deployed; the trials of a sweep share it."""
    shared: SharedTensors = field(default_factory=SharedTensors)
    """What else the trials of a sweep share of this network."""


class Progress(NamedTuple):
    """How far a compression has come: ``done`` of ``total`` steps."""

    done: int
    total: int


@dataclass(frozen=True)
class Compressed:
    """What a method hands back.

    Attributes:
        model: the compressed network.
        recipe: rebuilds its structure.
        metrics: what the method alone can say of its result, shown beside what every trial measures.
        history: how it came to its choices, JSON-ready; figures are drawn from it.
    """

    model: nn.Module
    recipe: Recipe
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """A way of choosing a recipe and its weights; one file in this package, or an entry point ``lrsearch.methods``."""

    Hyperparameters: ClassVar[type[Hyperparameters]]

    def statistics(self, model: nn.Module, task: Task) -> dict[str, Tensor]:
        """What every trial of this dense network shares (singular values, say), as named tensors; by default nothing.

        Independent of hyperparameters. It is computed once per sweep, kept as safetensors and handed back to
        ``compress``, on the CPU whatever the device of the network.
        """
        return {}

    def compress(
        self, model: nn.Module, task: Task, hyperparameters: Any, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Compress a copy of ``model``, which stays untouched, yielding after every unit of work.

        Raises:
            BudgetUnreachableError: no choice of factorizations meets the budget.
        """


@runtime_checkable
class AppliesRecipes(Method, Protocol):
    """A method whose recipe takes more to apply than to decompose each layer's weight by itself."""

    def apply_recipe(
        self, model: nn.Module, task: Task, recipe: Recipe, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Give a copy of ``model`` the structure of a recipe of this method, and weights from those of ``model``.

        Raises:
            LrsearchError: the recipe does not fit the network.
        """


@runtime_checkable
class Retrains(Protocol):
    """A method that has its own idea of the training after compression."""

    def retraining(self, compressed: Compressed, dense: nn.Module, hyperparameters: Any) -> Retraining:
        """What the training of ``compressed.model`` freezes, and what it adds to the loss.

        Args:
            compressed: by this method, its model as rebuilt from the recipe, on the device of ``dense``.
            dense: the network it came from, in eval mode.
            hyperparameters: that the network was compressed with.
        """
