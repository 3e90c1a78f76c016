"""The shape that ALDS and its relatives share: how layers are sliced and folded x how the budget is spread.

Source: ALDS supplement B.4 and C.3 tell the relatives apart; a method here only declares how it chooses.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lrsearch.allocate import Candidates, Rule
from lrsearch.distributions import Uniform
from lrsearch.factorize import LayerShape, find_layers, layer_cost
from lrsearch.factorize.svd import singular_values
from lrsearch.methods import base
from lrsearch.methods.base import Budget, Compressed, Progress, Search, Task
from lrsearch.methods.one_shot.apply import finite_weight
from lrsearch.methods.one_shot.candidates import Family, is_smaller, svd, svd_candidates
from lrsearch.methods.one_shot.cap import Caps
from lrsearch.methods.one_shot.errors import ErrorMeasure, proxy
from lrsearch.methods.one_shot.timed import DENSE
from lrsearch.methods.one_shot.within_budget import compress_within


class BudgetHyperparameters(base.Hyperparameters):
    """What a method can be told that follows from its budget alone."""

    budget: Annotated[Budget, Search({"params": Uniform(0.1, 0.8)})] = Budget(params=0.5)
    """The fractions of parameters, FLOPs and latency to keep, one of them or several at once."""


class Spectral:
    """SVD of every layer, ranks and subspaces chosen by the singular values of its slices.

    A method is a subclass that sets what is constant and overrides what its hyperparameters decide.
    """

    name: ClassVar[str]
    Hyperparameters: ClassVar[type[base.Hyperparameters]] = BudgetHyperparameters
    schemes: ClassVar[Sequence[int]] = (0,)
    """The foldings to choose from (ALDS supplement A.6)."""
    sliced: ClassVar[bool] = False
    """Whether layers may have more than one subspace, so that there are statistics of every number of them."""
    rule: ClassVar[Rule] = "max"

    def folded(self, hyperparameters: BudgetHyperparameters) -> Sequence[int]:
        """The foldings to choose from, all that there are statistics of unless told otherwise."""
        return self.schemes

    def subspaces(self, useful: Sequence[int], hyperparameters: BudgetHyperparameters) -> Sequence[int]:
        """Which of the numbers of subspaces that make a layer smaller, ascending from 1, it may have."""
        return useful[:1]

    def measure(self, hyperparameters: BudgetHyperparameters) -> ErrorMeasure:
        """The error of a layer that the rule weighs."""
        return proxy

    def spread(
        self,
        caps: Caps,
        layers: Sequence[Candidates],
        hyperparameters: BudgetHyperparameters,
        generator: torch.Generator,
    ) -> list[int]:
        """The chosen candidate of each layer."""
        return caps.allocate(layers, self.rule)

    def statistics(self, model: nn.Module, task: Task) -> dict[str, Tensor]:
        """The singular values of every layer's slices for every folding and number of subspaces to choose from.

        Returns:
            ``<layer>/<scheme>/<k>`` -> (groups, k, r), descending.

        Raises:
            LrsearchError: a layer's weight is not finite.
        """
        values: dict[str, Tensor] = {}
        for scheme in sorted({0, *self.schemes}):  # 0 has the norms of whole weights, which errors are relative to
            table = f"spectra-{scheme}-sliced" if self.sliced else f"spectra-{scheme}"
            values |= task.shared.get(table, partial(spectra, model, scheme, self.sliced))
        return values

    def compress(
        self, model: nn.Module, task: Task, hyperparameters: BudgetHyperparameters, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Choose the factorizations of all layers together, then decompose the layers one by one.

        Raises:
            BudgetUnreachableError: the budget is smaller than what rank 1 everywhere would keep.
        """

        def families(name: str, shape: LayerShape) -> Sequence[Family]:
            return self.families(name, shape, hyperparameters, statistics)

        def spread(caps: Caps, layers: Sequence[Candidates]) -> list[int]:
            return self.spread(caps, layers, hyperparameters, task.generator)

        return (yield from compress_within(model, task, self.name, hyperparameters.budget, families, spread))

    def families(
        self,
        name: str,
        shape: LayerShape,
        hyperparameters: BudgetHyperparameters,
        statistics: Mapping[str, Tensor],
    ) -> Sequence[Family]:
        """The factorizations of a layer to choose from."""
        spectra = {}
        for scheme in foldings(shape, self.folded(hyperparameters)):
            useful = useful_subspaces(shape, scheme)
            for k in self.subspaces(useful, hyperparameters) if useful else ():
                spectra[scheme, k] = statistics[f"{name}/{scheme}/{k}"]
        norm = float(statistics[f"{name}/0/1"].max()) if spectra else 0.0
        return svd_candidates(shape, spectra, norm, self.measure(hyperparameters))


def spectra(model: nn.Module, scheme: int, sliced: bool) -> dict[str, Tensor]:
    """The singular values of every layer's slices in one folding.

    In folding 0 also of the whole weight, where some folding makes the layer smaller: its errors are relative to that.

    Args:
        model: the dense network.
        scheme: the folding (ALDS supplement A.6).
        sliced: whether of every useful number of subspaces, or of one alone.

    Returns:
        ``<layer>/<scheme>/<k>`` -> (groups, k, r), descending.

    Raises:
        LrsearchError: a layer's weight is not finite.
    """
    values = {}
    for name, shape in find_layers(model)[0].items():
        useful = {each: useful_subspaces(shape, each) for each in foldings(shape, range(4))}
        own = useful.get(scheme, [])
        subspaces = set(own if sliced else own[:1])
        if scheme == 0 and any(useful.values()):
            subspaces.add(1)
        if subspaces:
            weight = finite_weight(model, name)
            for k, spectrum in singular_values(weight, shape.groups, scheme, sorted(subspaces)).items():
                values[f"{name}/{scheme}/{k}"] = spectrum.cpu()
    return values


def foldings(shape: LayerShape, schemes: Sequence[int]) -> list[int]:
    """The schemes that differ for this kernel: those whose second stage owns no axis but ones longer than 1."""
    tall, wide = (size > 1 for size in shape.kernel)
    distinct = {0: True, 1: tall, 2: wide, 3: tall and wide}
    return [scheme for scheme in schemes if distinct[scheme]]


def useful_subspaces(shape: LayerShape, scheme: int) -> list[int]:
    """The numbers of subspaces for which a layer of rank 1 is smaller than the dense one; 1 if there are any."""
    dense = layer_cost(shape, DENSE)
    divisors = [k for k in range(1, shape.in_per_group + 1) if shape.in_per_group % k == 0]
    return [k for k in divisors if is_smaller(layer_cost(shape, svd(scheme, k, 1)), dense)]


def drawn(generator: torch.Generator) -> np.random.Generator:
    """A generator for the allocator, seeded by the trial's."""
    return np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
