"""RENE: the rank of every layer found by gradient descent over candidate ranks, at ever higher resolution.

Source: Aghababaei-Harandi and Amini, "Unified Framework for Pre-trained Neural Network Compression via Decomposition
and Optimized Rank Selection" (2025), Algorithm 1. Where the paper is ambiguous or its printed formulas do not do what
its text says (the bounds of a stage, the mixture in eq. 6, learning rates), each hyperparameter says what is done.
Grouped convolutions are decomposed group by group.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lrsearch.allocate import Candidates
from lrsearch.distributions import Choice, IntUniform
from lrsearch.errors import LrsearchError
from lrsearch.factorize import LayerShape, find_layers
from lrsearch.factorize.ranks import Decomposition
from lrsearch.methods import base
from lrsearch.methods.base import Budget, Compressed, Progress, Search, Task
from lrsearch.methods.one_shot.apply import apply
from lrsearch.methods.one_shot.candidates import NOT_SMALLER, Family
from lrsearch.methods.one_shot.cap import Caps, make_caps
from lrsearch.methods.one_shot.progress import counted
from lrsearch.methods.one_shot.within_budget import compress_within
from lrsearch.methods.rene_search.budget import by_rank, shares, smaller_members
from lrsearch.methods.rene_search.grid import step_sizes
from lrsearch.methods.rene_search.search import Found, Layer, Plan, search
from lrsearch.methods.rene_search.stage import Settings
from lrsearch.recipe import Factorization
from lrsearch.training import Retraining
from lrsearch.training.distillation import distil_layers

LEFT_DENSE = "the rank search leaves it dense"


class ReneHyperparameters(base.Hyperparameters):
    """What ``rene`` can be told."""

    decomposition: Annotated[Decomposition, Search(Choice(("tt", "cp")))] = "tt"
    """Tensor train of equal ranks; or CP with the kernel as one mode (``cp``) or height and width apart (``cp4``)."""
    initial_step: Annotated[int, Field(ge=1), Search(IntUniform(2, 32, log=True))] = 10
    """Distance of the candidate ranks in the first stage: all multiples up to break-even, and the dense layer."""
    factor: Annotated[int, Field(ge=2), Search(Choice((2, 4, 10)))] = 10
    """By which the step is divided from stage to stage; each searches half an old step around the rank it chose, and
    once more around its own choices where one is at the end of what was searched."""
    stages: Annotated[int, Field(ge=1)] | None = None
    """Number of stages, which is the number of resolutions; None goes on until the step is 1."""
    steps: Annotated[int, Field(ge=1)] = 100
    """Alternating steps on factorizations and on coefficients in each stage."""
    warm_up: Annotated[int, Field(ge=0)] = 20
    """Steps on the factorizations alone before them, with the objective ``paper``."""
    beta: Annotated[float, Field(ge=0)] = 0.8
    """Exponent of the rank loss (eq. 5): how strongly small ranks are wanted where no budget says so."""
    gamma: Annotated[float, Field(gt=0)] = 0.4
    """Factor of the rank loss; in a product of losses it only scales the learning rates."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate of the factorizations, of weights scaled to norm 1, with the objective ``paper``."""
    lr_alpha: Annotated[float, Field(gt=0)] = 1.0
    """Learning rate of the coefficients; with the paper's 0.001 they stay where they were."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Training images of each step on the coefficients."""
    objective: Literal["branch", "paper"] = "branch"
    """What the factorizations fit: the layer's weight each (``branch``), which they do from the start, so that only the
    coefficients are trained; or with their mixture alone (``paper``, eq. 6), by which every single one gets worse."""
    rank_loss: Literal["cost", "cap", "paper"] = "cost"
    """What presses on ranks: what the layers cost together of what the budget counts (``cost``), or the sum of all
    ranks (eq. 5), each relative to its layer's break-even rank (``cap``) or to the largest candidate of the stage
    (``paper``, whose pressure fades from stage to stage). A sum of ranks counts every layer alike, however many
    parameters hang on its rank: a ResNet-20 at half its parameters had 75.2 % with it before retraining, in place of
    76.0 % (means of two seeds, 1,000 images: hardly more than chance)."""
    data_free: bool = False
    """Train the coefficients on the decomposition loss in place of the cross-entropy."""
    distillation: Annotated[float, Field(ge=0)] = 0.5
    """Weight (lambda, eq. 11) of the distance to the dense layers' weights and outputs in the loss of retraining."""


class Rene(base.Method):
    """The method ``rene``."""

    Hyperparameters: ClassVar[type[base.Hyperparameters]] = ReneHyperparameters

    def compress(
        self, model: nn.Module, task: Task, hyperparameters: ReneHyperparameters, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Search the ranks of all layers, fit them to the budget, then decompose the layers one by one.

        Raises:
            BudgetUnreachableError: the budget is smaller than what rank 1 everywhere would keep.
            TrialFailedError: a loss is not finite, or a CP decomposition diverges.
            LrsearchError: there is no data to train on, or a layer's weight is not finite.
        """
        if task.splits is None and not hyperparameters.data_free:
            raise LrsearchError("rene trains on data, expected splits with a training part, or data_free: true")
        shapes, dense = find_layers(model, task.example_input)
        members = {name: smaller_members(shape, hyperparameters.decomposition) for name, shape in shapes.items()}
        budget = hyperparameters.budget
        costs = shares(make_caps(model, shapes, budget or Budget(params=1.0), task), shapes, members)
        layers = {name: Layer(shapes[name], torch.from_numpy(shared)) for name, shared in costs.items()}
        plan = _plan(hyperparameters, task)
        ahead = plan.passes * (len(layers) + plan.stage_length) if layers else 0
        total = ahead + max(1, len(shapes))
        found = Found({})
        if layers:
            found = yield from counted(search(model, layers, plan, task), 0, ahead, total)
        ranks = {name: chosen[-1] for name, chosen in found.ranks.items()}
        if budget is not None:

            def families(name: str, shape: LayerShape) -> list[Family]:
                return [by_rank(shape, members[name], ranks.get(name, 1))]

            decomposed = compress_within(model, task, "rene", budget, families, _in_proportion)
        else:
            chosen = {
                name: of_layer[ranks[name] - 1]
                if ranks.get(name, 1) <= len(of_layer)
                else Factorization(kind="dense", reason=LEFT_DENSE if of_layer else NOT_SMALLER)
                for name, of_layer in members.items()
            }
            decomposed = apply(model, task, "rene", chosen, dense)
        compressed = yield from counted(decomposed, ahead, total, total)
        return replace(compressed, history={"alpha": found.alpha, "ranks": found.ranks})

    def retraining(self, compressed: Compressed, dense: nn.Module, hyperparameters: ReneHyperparameters) -> Retraining:
        """The factorized layers are kept close to the dense ones (eqs. 10 and 11)."""
        factorized = [name for name, layer in compressed.recipe.layers.items() if layer.kind != "dense"]
        if not factorized or not hyperparameters.distillation:
            return Retraining()
        return Retraining(extra_loss=distil_layers(compressed.model, dense, factorized, hyperparameters.distillation))


def _in_proportion(caps: Caps, layers: Sequence[Candidates]) -> list[int]:
    return caps.allocate(layers, "max")


def _plan(hyperparameters: ReneHyperparameters, task: Task) -> Plan:
    given = hyperparameters
    return Plan(
        settings=Settings(**given.model_dump(include={setting.name for setting in fields(Settings)})),
        sizes=step_sizes(given.initial_step, given.factor, given.stages),
        warm_up=given.warm_up,
        steps=given.steps,
        batch_size=given.batch_size,
        data=None if given.data_free else task.splits,
        seed=int(torch.randint(2**31, (), generator=task.generator)),
        steered=given.budget is not None,
    )


METHOD: base.Method = Rene()
