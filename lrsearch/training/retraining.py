"""What a compression method may change about the training that follows it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from torch import Tensor

ExtraLoss = Callable[[Tensor, Tensor], Tensor]
"""(inputs, outputs) of a training step -> a scalar."""


def _nothing_frozen(_: int) -> Collection[str]:
    return ()


@dataclass(frozen=True)
class Retraining:
    """The plain training, unless told otherwise.

    Attributes:
        frozen: epoch, from 1 -> names of the parameters that stay as they are in it; their gradients are not
            computed.
        extra_loss: added to the cross-entropy.
    """

    frozen: Callable[[int], Collection[str]] = _nothing_frozen
    extra_loss: ExtraLoss | None = None

    def adding(self, loss: ExtraLoss) -> Retraining:
        """The same with another extra loss beside its own."""
        own = self.extra_loss
        both = loss if own is None else lambda inputs, outputs: own(inputs, outputs) + loss(inputs, outputs)
        return replace(self, extra_loss=both)
