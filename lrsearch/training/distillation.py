"""Losses that keep a network close to another, to be added to the cross-entropy (``Retraining.extra_loss``).

Sources: Hinton et al. 2015 for logits; Aghababaei-Harandi and Amini, RENE (2025), eqs. 10 and 11 for layers, here
with means over elements where they sum, since sums of squares over all outputs swamp a cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, mse_loss
from torch.utils.hooks import RemovableHandle

from lrsearch.factorize.effective_weight import effective_weight
from lrsearch.measure.modes import evaluation_mode
from lrsearch.training.retraining import ExtraLoss

_Outputs: TypeAlias = dict[str, list[Tensor]]


def distil_layers(student: nn.Module, teacher: nn.Module, names: Collection[str], weight: float) -> ExtraLoss:
    """``weight`` times the distance of factorized layers to the dense ones: of their weights, and of their outputs.

    Each distance is a mean of squares over elements, summed over layers. The outputs of a dense layer are those in
    the teacher on the same batch; those of a factorized one are taken from the forward pass of the training step.

    Args:
        student: the compressed network; from now on its layers remember their outputs while it trains.
        teacher: the dense network, left as it is.
        names: of the factorized layers, each a chain of stages in the student.
        weight: lambda in eq. 11.
    """
    seen: _Outputs = {}
    student.register_forward_pre_hook(lambda *_: seen.clear())
    for name in names:
        student.get_submodule(name).register_forward_hook(_while_training(seen, name))

    def loss(inputs: Tensor, outputs: Tensor) -> Tensor:
        with torch.no_grad(), evaluation_mode(teacher), _watched(teacher, names) as wanted:
            teacher(inputs)
        total = outputs.new_zeros(())
        for name in names:
            for found, target in zip(seen.get(name, []), wanted.get(name, []), strict=True):
                total = total + mse_loss(found, target)
            total = total + _weight_distance(student.get_submodule(name), teacher.get_submodule(name))
        return weight * total

    return loss


def distil_logits(teacher: nn.Module, weight: float, temperature: float = 4.0) -> ExtraLoss:
    """``weight`` times T^2 KL(teacher || student) of the class probabilities at temperature T, averaged over answers.

    With it a small network is trained towards a large one (``train(..., retraining=Retraining(extra_loss=...))``)
    before it is compressed itself: RENE's "double compression".
    """

    def loss(inputs: Tensor, outputs: Tensor) -> Tensor:
        with torch.no_grad(), evaluation_mode(teacher):
            wanted = log_softmax(teacher(inputs) / temperature, dim=1)
        found = log_softmax(outputs / temperature, dim=1)
        distances = kl_div(found, wanted, reduction="none", log_target=True).sum(1)
        return weight * temperature**2 * distances.mean()

    return loss


def _weight_distance(chain: nn.Module, dense: nn.Module) -> Tensor:
    target = dense.get_parameter("weight").detach()
    if not isinstance(chain, nn.Sequential):
        return mse_loss(chain.get_parameter("weight"), target)
    return mse_loss(effective_weight(chain, target.shape), target)


def _while_training(seen: _Outputs, name: str) -> Callable[[nn.Module, object, Tensor], None]:
    def remember(module: nn.Module, _: object, output: Tensor) -> None:
        if module.training:
            seen.setdefault(name, []).append(output)

    return remember


@contextmanager
def _watched(model: nn.Module, names: Collection[str]) -> Iterator[_Outputs]:
    """The outputs of these layers, in the order of their calls."""
    outputs: _Outputs = {}
    handles: list[RemovableHandle] = []
    for name in names:

        def remember(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
            outputs.setdefault(name, []).append(output)

        handles.append(model.get_submodule(name).register_forward_hook(remember))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
