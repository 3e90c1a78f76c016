"""Vanilla low-rank decomposition: Tucker-2 for convolutions, SVD for 1x1 convolutions and Linear layers.

Source: Hajimolahoseini, Ahmed, Wen, Liu, "Accelerating the Low-Rank Decomposed Models" (2024), eqs. 1-7. Every layer
is made ``alpha`` times smaller; with a budget, the alpha that the budget allows is found.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor, nn

from lrsearch.allocate import Candidates
from lrsearch.distributions import Uniform
from lrsearch.factorize import LayerShape, factorize_layer, find_layers, layer_cost
from lrsearch.factorize.stages import max_rank, max_tucker_ranks
from lrsearch.methods import base
from lrsearch.methods.base import Budget, Compressed, Progress, Search, Task
from lrsearch.methods.one_shot import left_out
from lrsearch.methods.one_shot.apply import apply
from lrsearch.methods.one_shot.candidates import NOT_SMALLER, Family, is_smaller, sizes, svd
from lrsearch.methods.one_shot.cap import Caps
from lrsearch.methods.one_shot.timed import DENSE, TimedLayers, near
from lrsearch.methods.one_shot.within_budget import compress_within
from lrsearch.recipe import Factorization

_ALPHA = 2.0


class TuckerHyperparameters(base.Hyperparameters):
    """What ``tucker`` can be told."""

    budget: Budget | None = None
    """The fractions of parameters, FLOPs and latency to keep, instead of ``alpha``."""
    alpha: Annotated[Annotated[float, Field(ge=1)] | None, Search(Uniform(1.5, 10.0, log=True))] = None
    """How many times smaller each layer becomes; 2 where neither ``alpha`` nor ``budget`` is given."""
    beta: Annotated[float, Field(gt=0)] = 1.0
    """Output-side rank over input-side rank of a Tucker decomposition."""
    stem: bool = False
    """Whether the first convolution is decomposed too."""
    classifier: bool = True
    """Whether the last Linear layer is decomposed too; in a network of few classes its rank becomes tiny."""
    refine: bool = False
    """Improve each Tucker decomposition by alternating least squares (higher-order orthogonal iteration)."""
    optimise_ranks: bool = False
    """Move each rank to one near it that suits the device, and leave layers dense that do not become faster, by time
    measured; with ``alpha`` only, for a budget could then not be kept."""

    @model_validator(mode="after")
    def _one_size(self) -> TuckerHyperparameters:
        if self.alpha is not None and self.budget is not None:
            raise ValueError("expected alpha or budget, got both")
        if self.optimise_ranks and self.budget is not None:
            raise ValueError("expected optimise_ranks with alpha, got it with a budget")
        return self


class Tucker:
    """The method ``tucker``."""

    Hyperparameters: ClassVar[type[base.Hyperparameters]] = TuckerHyperparameters

    def statistics(self, model: nn.Module, task: Task) -> dict[str, Tensor]:
        """Nothing: ranks follow from shapes."""
        return {}

    def compress(
        self, model: nn.Module, task: Task, hyperparameters: TuckerHyperparameters, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Set every layer's ranks from its shape, then decompose them one by one.

        Raises:
            BudgetUnreachableError: the budget is smaller than what rank 1 everywhere would keep.
        """
        layers, dense = find_layers(model, task.example_input)
        if not hyperparameters.stem:
            dense |= left_out.stem(model, layers)
        if not hyperparameters.classifier:
            dense |= left_out.classifier(model, layers)
        beta, budget = hyperparameters.beta, hyperparameters.budget

        def factorize(_: str, layer: nn.Module, factorization: Factorization) -> nn.Module:
            return factorize_layer(layer, factorization, refine=hyperparameters.refine)

        def families(_: str, shape: LayerShape) -> list[Family]:
            return [_family(shape, beta)]

        if budget is not None:
            # The smallest common alpha that the budget allows, then single layers' next ranks that fit; alpha is here
            # how many times less a layer has of what the budget is in.
            return (yield from compress_within(model, task, "tucker", budget, families, _alike, factorize, dense))
        alpha = hyperparameters.alpha or _ALPHA
        chosen = {name: vanilla(shape, alpha, beta) for name, shape in layers.items() if name not in dense}
        metrics = {}
        if hyperparameters.optimise_ranks:
            timed = TimedLayers(model, {name: layers[name] for name in chosen}, task, "optimise_ranks")
            chosen = {name: _faster(timed, name, layers[name], each, beta) for name, each in chosen.items()}
            metrics = {"predicted_speedup": timed.predicted_speedup(chosen)}
        compressed = yield from apply(model, task, "tucker", chosen, dense, factorize=factorize)
        return replace(compressed, metrics=metrics)


def vanilla(shape: LayerShape, alpha: float, beta: float = 1.0) -> Factorization:
    """The factorization that makes a layer ``alpha`` times smaller, or dense where none is smaller.

    For 1x1 the rank is CS / (alpha (C + S)); otherwise r2 = beta r1 with r1 the positive root of
    beta k^2 r1^2 + (C + beta S) r1 - C S k^2 / alpha = 0 (eq. 7). Ranks are rounded down, to 1 at least. In a
    grouped convolution C and S are those of one group.
    """
    inputs, outputs, area = shape.in_per_group, shape.out_per_group, math.prod(shape.kernel)
    if area == 1:
        rank = inputs * outputs / (alpha * (inputs + outputs))
    else:
        linear, constant = inputs + beta * outputs, inputs * outputs * area / alpha
        rank = (math.sqrt(linear**2 + 4 * beta * area * constant) - linear) / (2 * beta * area)
    factorization = _of_rank(shape, min(max(1, math.floor(rank)), _max_rank(shape)), beta)
    if is_smaller(layer_cost(shape, factorization), layer_cost(shape, DENSE)):
        return factorization
    return Factorization(kind="dense", reason=NOT_SMALLER)


def _of_rank(shape: LayerShape, rank: int, beta: float) -> Factorization:
    if shape.kernel == (1, 1):
        return svd(0, 1, rank)
    return Factorization(kind="tucker2", ranks=(rank, min(max(1, math.floor(beta * rank)), max_tucker_ranks(shape)[1])))


def _max_rank(shape: LayerShape) -> int:
    return max_rank(shape, 0, 1) if shape.kernel == (1, 1) else max_tucker_ranks(shape)[0]


def _alike(caps: Caps, layers: Sequence[Candidates]) -> list[int]:
    return caps.allocate(layers, "constant")


def _faster(timed: TimedLayers, name: str, shape: LayerShape, wanted: Factorization, beta: float) -> Factorization:
    """A rank near the wanted one that runs fast on this device, or dense."""
    if wanted.kind == "dense":
        return wanted
    dense, members = layer_cost(shape, DENSE), {wanted.ranks[0]: wanted}
    for rank in near(wanted.ranks[0], timed.tile, _max_rank(shape)):
        member = _of_rank(shape, rank, beta)
        if is_smaller(layer_cost(shape, member), dense):
            members[rank] = member
    return timed.faster(name, wanted.ranks[0], members)


def _family(shape: LayerShape, beta: float) -> Family:
    dense = layer_cost(shape, DENSE)
    members, costs = [], []
    for rank in range(1, _max_rank(shape) + 1):
        member = _of_rank(shape, rank, beta)
        cost = layer_cost(shape, member)
        if not is_smaller(cost, dense):
            break
        members.append(member)
        costs.append(sizes(cost))
    kept = np.array(costs, dtype=np.int64).reshape(-1, 2)
    return Family(0, 1 - kept[:, 0] / dense.params, kept, members.__getitem__)


METHOD: base.Method = Tucker()
