"""What a compression method may change about the training that follows it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import Tensor


def _nothing_frozen(_: int) -> Collection[str]:
    return ()


@dataclass(frozen=True)
class Retraining:
    """The plain training, unless told otherwise.

    Attributes:
        frozen: epoch, from 1 -> names of the parameters that stay as they are in it; their gradients are not
            computed.
        extra_loss: (inputs, outputs) of a step -> a scalar added to the cross-entropy.
    """

    frozen: Callable[[int], Collection[str]] = _nothing_frozen
    extra_loss: Callable[[Tensor, Tensor], Tensor] | None = None
