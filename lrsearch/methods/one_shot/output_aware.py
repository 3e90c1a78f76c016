"""The shape that data-aware methods share: layers decomposed for their outputs, the sum of errors made small."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lrsearch.allocate import Candidates
from lrsearch.factorize import LayerShape, factorize_layer, find_layers, layer_cost
from lrsearch.factorize.alternating import refine
from lrsearch.factorize.output_aware import DenseOutputs, FoldedOutputs, decompose, multiply_out
from lrsearch.factorize.stages import max_rank
from lrsearch.methods import base
from lrsearch.methods.base import Compressed, Progress, Task
from lrsearch.methods.one_shot.activations import Observer, observe
from lrsearch.methods.one_shot.apply import Factorize, apply, finite_weight
from lrsearch.methods.one_shot.candidates import Family, sizes, smaller_ranks, svd
from lrsearch.methods.one_shot.cap import Caps
from lrsearch.methods.one_shot.error_tables import error_tables
from lrsearch.methods.one_shot.spectral import BudgetHyperparameters, foldings, useful_subspaces
from lrsearch.methods.one_shot.timed import DENSE
from lrsearch.methods.one_shot.within_budget import compress_within
from lrsearch.recipe import Factorization, Recipe

IMAGES = 2560
"""How many calibration inputs are looked at."""
_RIDGE = 1e-4


class OutputAware:
    """SVD of every layer; ranks, foldings and subspaces chosen by what happens to the outputs.

    Without calibration data inputs are taken to be white and outputs equally important; the error is then that of
    the weight.
    """

    name: ClassVar[str]
    Hyperparameters: ClassVar[type[base.Hyperparameters]] = BudgetHyperparameters
    schemes: ClassVar[Sequence[int]] = (0, 1, 2, 3)
    subspaces: ClassVar[Sequence[int]] = (1,)
    """Into how many slices of input channels a layer may be cut."""
    observer: ClassVar[type[Observer]]
    """What tells the weight C on the input patches and, unless all count alike, H on the output channels."""

    def error(self, lost: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What is summed over layers, from the output errors of the ranks 0, 1, ..."""
        return lost

    def statistics(self, model: nn.Module, task: Task) -> dict[str, Tensor]:
        """What ``observe`` tells of the layers on the calibration inputs, and what each decomposition loses.

        Returns:
            The tensors of ``observe``, none without calibration data; ``<layer>/errors/<scheme>/<k>`` -> the output
            error of the ranks 0, 1, ... that make the layer smaller, as far as ``error_tables`` follows them.

        Raises:
            LrsearchError: a layer's weight is not finite, or the calibration data is empty.
        """
        layers, _ = find_layers(model, task.example_input)
        weights = {name: finite_weight(model, name) for name in layers}
        found: dict[str, Tensor] = {}
        if task.calibration is not None:
            found = observe(model, layers, task.calibration, task.device, IMAGES, self.observer)
        for name, shape in layers.items():
            costs = {key: _costs(shape, *key) for key in self._useful(shape)}
            if costs:
                groups = _View(weights[name], shape, name, found).dense
                for (scheme, subspaces), errors in error_tables(groups, costs).items():
                    found[f"{name}/errors/{scheme}/{subspaces}"] = errors
        return found

    def compress(
        self, model: nn.Module, task: Task, hyperparameters: BudgetHyperparameters, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Choose the factorizations of all layers together, then decompose the layers one by one.

        Raises:
            BudgetUnreachableError: the budget is smaller than what rank 1 everywhere would keep.
        """

        def families(name: str, shape: LayerShape) -> list[Family]:
            return self._families(name, shape, statistics)

        def spread(caps: Caps, layers: Sequence[Candidates]) -> list[int]:
            return caps.allocate(layers, "sum")

        budget, factorize = hyperparameters.budget, _factorize(model, statistics)
        return (yield from compress_within(model, task, self.name, budget, families, spread, factorize))

    def apply_recipe(
        self, model: nn.Module, task: Task, recipe: Recipe, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Decompose the layers for their outputs, at the ranks of the recipe."""
        factorize = _factorize(model, statistics)
        return (yield from apply(model, task, self.name, recipe.layers, {}, factorize=factorize))

    def _useful(self, shape: LayerShape) -> list[tuple[int, int]]:
        """Schemes and numbers of subspaces."""
        return [
            (scheme, subspaces)
            for scheme in foldings(shape, self.schemes)
            for subspaces in useful_subspaces(shape, scheme)
            if subspaces in self.subspaces
        ]

    def _families(self, name: str, shape: LayerShape, statistics: Mapping[str, Tensor]) -> list[Family]:
        families = []
        for scheme, subspaces in self._useful(shape):
            lost = statistics[f"{name}/errors/{scheme}/{subspaces}"].numpy()
            costs = _costs(shape, scheme, subspaces)[: len(lost) - 1]
            errors = self.error(lost)[1 : len(costs) + 1]
            families.append(Family(subspaces, errors, costs, _member(scheme, subspaces)))
        return families


def _factorize(model: nn.Module, statistics: Mapping[str, Tensor]) -> Factorize:
    shapes, _ = find_layers(model)

    def factorize(name: str, layer: nn.Module, factorization: Factorization) -> nn.Module:
        view = _View(finite_weight(model, name), shapes[name], name, statistics)
        return view.factorized(layer, factorization)

    return factorize


class _View:
    """One layer with what is known of its inputs and outputs, in the precision of its weight but at least single."""

    def __init__(self, weight: Tensor, shape: LayerShape, name: str, statistics: Mapping[str, Tensor]) -> None:
        self._shape = shape
        self._mean = statistics.get(f"{name}/mean")
        exact = weight.detach().cpu().to(torch.promote_types(weight.dtype, torch.float32))
        weights = exact.reshape(shape.groups, shape.out_per_group, shape.in_per_group, *shape.kernel)
        inputs, outputs = (
            statistics[key] if key in statistics else torch.eye(side).expand(shape.groups, -1, -1)
            for key, side in ((f"{name}/inputs", weights[0, 0].numel()), (f"{name}/outputs", shape.out_per_group))
        )
        self.dense = [
            DenseOutputs(group, _ridged(covariance.to(group)), importance.to(group))
            for group, covariance, importance in zip(weights, inputs, outputs, strict=True)
        ]

    def factorized(self, layer: nn.Module, factorization: Factorization) -> nn.Module:
        """The stages' weights, split evenly between both, and the bias that keeps the mean output."""
        rank, subspaces = factorization.ranks[0], factorization.groups
        folded = [FoldedOutputs(group, factorization.scheme) for group in self.dense]
        stages = [_balanced(*refine(decompose(group, subspaces, rank), rank)) for group in folded]
        bias = None
        if layer.bias is not None and self._mean is not None:
            kept = torch.stack([multiply_out(*each, group.cells) for each, group in zip(stages, folded, strict=True)])
            dense = torch.stack([group.weight.flatten(1) for group in self.dense])
            old = layer.get_parameter("bias").detach()
            bias = old + ((dense - kept) @ self._mean[:, :, None].to(dense)).flatten().to(old)
        made = [group.convolutions(*each) for each, group in zip(stages, folded, strict=True)]
        firsts, seconds = zip(*made, strict=True)
        return factorize_layer(layer, factorization, weights=(torch.cat(firsts), torch.cat(seconds)), bias=bias)


def _balanced(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both stages scaled to equal norms, component by component, so that they train at the same pace."""
    tiny = torch.finfo(first.dtype).tiny
    scale = (second.norm(dim=(0, 3)) / first.norm(dim=2).clamp_min(tiny)).clamp_min(tiny).sqrt()
    return first * scale[..., None], second / scale[..., None]


def _ridged(covariance: Tensor) -> Tensor:
    """Few inputs span few directions; the others must not be free to change.

    Nor may rounding to single precision, in which statistics are kept, make a direction's variance negative.
    """
    level = covariance.diagonal().mean()
    if not level > 0:
        return torch.eye(len(covariance)).to(covariance)
    ridged = covariance.clone()
    ridged.diagonal().add_(max(_RIDGE, torch.finfo(torch.float32).eps * len(covariance)) * level)
    return ridged


def _costs(shape: LayerShape, scheme: int, subspaces: int) -> npt.NDArray[np.int64]:
    """(ranks, 2): parameters and multiply-adds of the ranks that make the layer smaller and that it has."""
    first = layer_cost(shape, svd(scheme, subspaces, 1))
    ranks = smaller_ranks(first, layer_cost(shape, DENSE))[: max_rank(shape, scheme, subspaces)]
    return np.outer(ranks, sizes(first))


def _member(scheme: int, subspaces: int) -> Callable[[int], Factorization]:
    return lambda index: svd(scheme, subspaces, index + 1)
