"""ALDS: automatic layer-wise decomposition selector.

Source: Liebenwein, Maalouf, Gal, Feldman, Rus, "Compressing Neural Networks: Towards Determining the Optimal
Layer-wise Decomposition", NeurIPS 2021: Algorithm 1, supplement A.4. A layer is sliced into k subspaces of
consecutive input channels and each slice is decomposed by SVD; k and rank are chosen for all layers together so
that the largest relative error of a layer is as small as the budget allows.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from lrsearch.distributions import Uniform
from lrsearch.factorize import LayerShape, find_layers, layer_cost
from lrsearch.factorize.svd import singular_values
from lrsearch.methods import base
from lrsearch.methods.base import Budget, Compressed, Progress, Search, Task
from lrsearch.methods.one_shot.apply import apply, finite_weight
from lrsearch.methods.one_shot.candidates import LayerTable, is_smaller, svd, svd_candidates
from lrsearch.methods.one_shot.cap import DENSE, Cap, make_cap
from lrsearch.methods.one_shot.errors import proxy

_SCHEME = 0


class AldsHyperparameters(base.Hyperparameters):
    """What ``alds`` can be told."""

    budget: Annotated[Budget, Search({"params": Uniform(0.1, 0.8)})] = Budget(params=0.5)
    """The fraction of parameters or FLOPs to keep."""
    max_subspaces: Annotated[int, Field(ge=1)] | None = None
    """The largest number k of subspaces in a layer; None allows every divisor of its input channels."""
    solver: Literal["max", "alternating"] = "max"
    """``max`` finds the smallest possible largest error; ``alternating`` is the paper's Algorithm 1."""
    n_seeds: Annotated[int, Field(ge=1)] = 15
    """Random starts of ``alternating``."""


class Alds:
    """The method ``alds``."""

    Hyperparameters: ClassVar[type[base.Hyperparameters]] = AldsHyperparameters

    def statistics(self, model: nn.Module, task: Task) -> dict[str, Tensor]:
        """The singular values of every layer's slices for every number of subspaces.

        Returns:
            ``<layer>/<k>`` -> (groups, k, r), descending.

        Raises:
            LrsearchError: a layer's weight is not finite.
        """
        layers, _ = find_layers(model)
        values = {}
        for name, shape in layers.items():
            weight = finite_weight(model, name)
            for subspaces in _subspaces(shape):
                spectrum = singular_values(weight, shape.groups, _SCHEME, subspaces)
                values[f"{name}/{subspaces}"] = spectrum.cpu()
        return values

    def compress(
        self, model: nn.Module, task: Task, hyperparameters: AldsHyperparameters, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Choose rank and subspaces of every layer, then decompose them one by one.

        Raises:
            BudgetUnreachableError: the budget is smaller than what rank 1 everywhere would keep.
        """
        layers, dense = find_layers(model, task.example_input)
        cap = make_cap(model, layers, hyperparameters.budget, task)
        tables = {
            name: _table(name, shape, cap, hyperparameters.max_subspaces, statistics) for name, shape in layers.items()
        }
        seed = int(torch.randint(2**31, (), generator=task.generator))
        chosen = cap.allocate(
            [table.candidates for table in tables.values()],
            hyperparameters.solver,
            n_seeds=hyperparameters.n_seeds,
            rng=np.random.default_rng(seed),
        )
        factorizations = {
            name: table.factorization(index) for (name, table), index in zip(tables.items(), chosen, strict=True)
        }
        compressed = yield from apply(model, task, "alds", factorizations, dense)
        cap.verify(compressed.model, task)
        return compressed


def _table(
    name: str, shape: LayerShape, cap: Cap, max_subspaces: int | None, statistics: Mapping[str, Tensor]
) -> LayerTable:
    allowed = [k for k in _subspaces(shape) if max_subspaces is None or k <= max_subspaces]
    spectra = {(_SCHEME, k): statistics[f"{name}/{k}"] for k in allowed}
    norm = float(spectra[_SCHEME, 1].max()) if spectra else 0.0
    return svd_candidates(shape, spectra, norm, cap.unit, proxy)


def _subspaces(shape: LayerShape) -> list[int]:
    """The numbers of subspaces for which a layer of rank 1 is smaller than the dense one; 1 if there are any."""
    dense = layer_cost(shape, DENSE)
    divisors = [k for k in range(1, shape.in_per_group + 1) if shape.in_per_group % k == 0]
    return [k for k in divisors if is_smaller(layer_cost(shape, svd(_SCHEME, k, 1)), dense)]


METHOD: base.Method = Alds()
