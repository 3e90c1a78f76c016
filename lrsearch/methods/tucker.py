"""Vanilla low-rank decomposition: Tucker-2 for convolutions, SVD for 1x1 convolutions and Linear layers.

Source: Hajimolahoseini, Ahmed, Wen, Liu, "Accelerating the Low-Rank Decomposed Models" (2024), eqs. 1-7. Every layer
is made ``alpha`` times smaller; with a budget, the alpha that the budget allows is found.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor, nn

from lrsearch.allocate import Candidates
from lrsearch.distributions import Choice, Uniform
from lrsearch.factorize import LayerShape, factorize_layer, find_layers, layer_cost
from lrsearch.factorize.stages import max_rank, max_tucker_ranks
from lrsearch.methods import base
from lrsearch.methods.base import Budget, Compressed, Progress, Search, Task
from lrsearch.methods.one_shot import left_out
from lrsearch.methods.one_shot.apply import apply
from lrsearch.methods.one_shot.candidates import NOT_SMALLER, Family, is_smaller, sizes, svd
from lrsearch.methods.one_shot.cap import Caps
from lrsearch.methods.one_shot.freezing import Freeze, frozen_factors
from lrsearch.methods.one_shot.merging import merge
from lrsearch.methods.one_shot.timed import DENSE, TimedLayers, near
from lrsearch.methods.one_shot.within_budget import compress_within
from lrsearch.recipe import Factorization
from lrsearch.training import Retraining

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
    downsample: bool = True
    """Whether the convolutions of shortcuts are decomposed too."""
    classifier: bool = True
    """Whether the last Linear layer is decomposed too; in a network of few classes its rank becomes tiny."""
    refine: bool = False
    """Improve each Tucker decomposition by alternating least squares (higher-order orthogonal iteration)."""
    branches: Annotated[Annotated[int, Field(ge=1)], Search(Choice((1, 2, 4)))] = 1
    """Independent parts of each Tucker core, a divisor of both ranks; 1 where a layer's ranks are smaller."""
    freeze: Freeze = "none"
    """Factors that stay fixed in retraining, for its speed: ``published`` fixes the input-side factor of an SVD pair
    and both 1x1 of a Tucker chain, ``sequential`` these and the others in turn from epoch to epoch."""
    merge: bool = False
    """Instead make bottlenecks ``alpha`` times narrower: the outer factors of their k x k convolutions' decompositions
    are merged into the 1x1 convolutions beside them, which leaves as many layers as before."""
    optimise_ranks: bool = False
    """Move each rank to one near it that suits the device, and leave layers dense that do not become faster, by time
    measured; with ``alpha`` only, for a budget could then not be kept."""

    @model_validator(mode="after")
    def _one_size(self) -> TuckerHyperparameters:
        if self.alpha is not None and self.budget is not None:
            raise ValueError("expected alpha or budget, got both")
        for name in ("optimise_ranks", "merge"):
            if getattr(self, name) and self.budget is not None:
                raise ValueError(f"expected {name} with alpha, got it with a budget")
        if self.optimise_ranks and self.merge:
            raise ValueError("expected merge or optimise_ranks, got both")
        return self


class Tucker(base.Method):
    """The method ``tucker``."""

    Hyperparameters: ClassVar[type[base.Hyperparameters]] = TuckerHyperparameters

    def compress(
        self, model: nn.Module, task: Task, hyperparameters: TuckerHyperparameters, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Set every layer's ranks from its shape, then decompose them one by one.

        Raises:
            BudgetUnreachableError: the budget is smaller than what rank 1 everywhere would keep.
        """
        if hyperparameters.merge:
            alpha = hyperparameters.alpha or _ALPHA
            return (yield from merge(model, task, "tucker", lambda width: max(1, math.floor(width / alpha))))
        layers, dense = find_layers(model, task.example_input)
        if not hyperparameters.stem:
            dense |= left_out.stem(model, layers)
        if not hyperparameters.downsample:
            dense |= left_out.shortcuts(model, layers)
        if not hyperparameters.classifier:
            dense |= left_out.classifier(model, layers)
        budget, core = hyperparameters.budget, CoreShape(hyperparameters.beta, hyperparameters.branches)

        def factorize(_: str, layer: nn.Module, factorization: Factorization) -> nn.Module:
            return factorize_layer(layer, factorization, refine=hyperparameters.refine)

        def families(_: str, shape: LayerShape) -> list[Family]:
            return [_family(shape, core)]

        if budget is not None:
            # The smallest common alpha that the budget allows, then single layers' next ranks that fit; alpha is here
            # how many times less a layer has of what the budget is in.
            return (yield from compress_within(model, task, "tucker", budget, families, _alike, factorize, dense))
        alpha = hyperparameters.alpha or _ALPHA
        chosen = {name: vanilla(shape, alpha, *core) for name, shape in layers.items() if name not in dense}
        metrics = {}
        if hyperparameters.optimise_ranks:
            timed = TimedLayers(model, {name: layers[name] for name in chosen}, task, "optimise_ranks")
            chosen = {name: _faster(timed, name, layers[name], each, core) for name, each in chosen.items()}
            metrics = {"predicted_speedup": timed.predicted_speedup(chosen)}
        compressed = yield from apply(model, task, "tucker", chosen, dense, factorize=factorize)
        return replace(compressed, metrics=metrics)

    def retraining(
        self, compressed: Compressed, dense: nn.Module, hyperparameters: TuckerHyperparameters
    ) -> Retraining:
        """The plain training with some factors fixed."""
        return Retraining(frozen=frozen_factors(compressed.recipe, hyperparameters.freeze))


class CoreShape(NamedTuple):
    """The shape of Tucker cores: ``beta`` = r2 / r1, and N ``branches``, which divide both."""

    beta: float = 1.0
    branches: int = 1


def vanilla(shape: LayerShape, alpha: float, beta: float = 1.0, branches: int = 1) -> Factorization:
    """The factorization that makes a layer ``alpha`` times smaller, or dense where none is smaller.

    For 1x1 the rank is CS / (alpha (C + S)); otherwise r2 = beta r1 with r1 the positive root of
    beta k^2 r1^2 / N + (C + beta S) r1 - C S k^2 / alpha = 0 (eq. 7, N branches). Ranks are rounded down, to 1 at
    least. In a grouped convolution C and S are those of one group.
    """
    inputs, outputs, area = shape.in_per_group, shape.out_per_group, math.prod(shape.kernel)
    if area == 1:
        rank = inputs * outputs / (alpha * (inputs + outputs))
    else:
        square, linear = beta * area / branches, inputs + beta * outputs
        rank = (math.sqrt(linear**2 + 4 * square * inputs * outputs * area / alpha) - linear) / (2 * square)
        if branches > 1 and min(rank, beta * rank) < branches:
            return vanilla(shape, alpha, beta)
    factorization = _of_rank(shape, min(max(1, math.floor(rank)), _max_rank(shape)), CoreShape(beta, branches))
    if is_smaller(layer_cost(shape, factorization), layer_cost(shape, DENSE)):
        return factorization
    return Factorization(kind="dense", reason=NOT_SMALLER)


def _of_rank(shape: LayerShape, rank: int, core: CoreShape) -> Factorization:
    """The factorization of a rank r1, or of the next smaller that the branches divide."""
    if shape.kernel == (1, 1):
        return svd(0, 1, rank)
    r2 = min(max(1, math.floor(core.beta * rank)), max_tucker_ranks(shape)[1])
    branches = core.branches if min(rank, r2) >= core.branches else 1
    ranks = rank // branches * branches, r2 // branches * branches
    return Factorization(kind="tucker2", ranks=ranks, groups=branches)


def _max_rank(shape: LayerShape) -> int:
    return max_rank(shape, 0, 1) if shape.kernel == (1, 1) else max_tucker_ranks(shape)[0]


def _alike(caps: Caps, layers: Sequence[Candidates]) -> list[int]:
    return caps.allocate(layers, "constant")


def _faster(timed: TimedLayers, name: str, shape: LayerShape, wanted: Factorization, core: CoreShape) -> Factorization:
    """A rank near the wanted one that runs fast on this device, or dense."""
    if wanted.kind == "dense":
        return wanted
    dense, members = layer_cost(shape, DENSE), {wanted.ranks[0]: wanted}
    for rank in near(wanted.ranks[0], timed.tile, _max_rank(shape)):
        member = _of_rank(shape, rank, core)
        if is_smaller(layer_cost(shape, member), dense):
            members[member.ranks[0]] = member
    return timed.faster(name, wanted.ranks[0], members)


def _family(shape: LayerShape, core: CoreShape) -> Family:
    dense = layer_cost(shape, DENSE)
    members: list[Factorization] = []
    costs = []
    for rank in range(1, _max_rank(shape) + 1):
        member = _of_rank(shape, rank, core)
        cost = layer_cost(shape, member)
        if not is_smaller(cost, dense):
            break
        if member not in members[-1:]:
            members.append(member)
            costs.append(sizes(cost))
    kept = np.array(costs, dtype=np.int64).reshape(-1, 2)
    return Family(0, 1 - kept[:, 0] / dense.params, kept, members.__getitem__)


METHOD: base.Method = Tucker()
