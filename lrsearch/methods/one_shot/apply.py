"""The last step: a network and a factorization for each layer in, the compressed network and its recipe out."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lrsearch.errors import LrsearchError, TrialFailedError
from lrsearch.factorize import copy_with
from lrsearch.methods.base import Compressed, Progress, Task
from lrsearch.methods.one_shot.decompose import decompose
from lrsearch.recipe import Factorization, Recipe

Factorize: TypeAlias = Callable[[str, nn.Module, Factorization], nn.Module]
"""(name, layer, factorization) -> the module that takes the layer's place."""


def apply(
    model: nn.Module,
    task: Task,
    method: str,
    chosen: Mapping[str, Factorization],
    dense: Mapping[str, str],
    *,
    factorize: Factorize | None = None,
) -> Generator[Progress, None, Compressed]:
    """Factorize the layers one by one, yielding after each; the model stays untouched.

    Args:
        model: the dense network.
        task: gives the recipe its architecture.
        method: the method's name, for the recipe.
        chosen: the factorization of each layer that has a choice.
        dense: the reason of each layer that has none.
        factorize: ``decompose`` by default.

    Raises:
        LrsearchError: a layer's weight is not finite.
        TrialFailedError: a decomposition diverges.
    """
    factorize = factorize or partial(decompose, shared=task.shared)
    replaced = [name for name, factorization in chosen.items() if factorization.kind != "dense"]
    layers = {}
    for done, name in enumerate(replaced, start=1):
        finite_weight(model, name)
        layer = model.get_submodule(name)
        with diverging(f"layer {name!r}, ranks {chosen[name].ranks}"):
            layers[name] = factorize(name, layer, chosen[name])
        yield Progress(done, len(replaced))
    if not replaced:
        yield Progress(1, 1)
    reasons = {name: Factorization(kind="dense", reason=reason) for name, reason in dense.items()}
    factorizations = {**chosen, **reasons}
    ordered = {name: factorizations[name] for name, _ in model.named_modules() if name in factorizations}
    return Compressed(copy_with(model, layers), Recipe(architecture=task.architecture, method=method, layers=ordered))


@contextmanager
def diverging(what: str) -> Iterator[None]:
    """Decompose ``what``, a layer and its candidates.

    Raises:
        TrialFailedError: it diverges.
    """
    try:
        yield
    except ArithmeticError as error:
        raise TrialFailedError(f"{what}: {error}") from error


def finite_weight(model: nn.Module, name: str) -> Tensor:
    """The weight of a layer that is to be decomposed.

    Raises:
        LrsearchError: it holds numbers that are not finite.
    """
    weight = model.get_submodule(name).get_parameter("weight")
    if not all(map(math.isfinite, map(float, torch.aminmax(weight.detach())))):  # several times faster than isfinite
        raise LrsearchError(
            f"the weight of layer {name!r} holds numbers that are not finite, expected a trained network"
        )
    return weight
