"""How networks run where they are deployed, and so how they are measured."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from lrsearch.factorize.folding import fold_batch_norm

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Deployment:
    """The settings under which time is measured.

    Attributes:
        batch_size: images of a forward pass.
        dtype: of weights and activations.
        channels_last: whether channels are the innermost axis of activations in memory.
        fold_batch_norm: whether batch norms are folded into the convolutions before them.
        compile: whether networks are compiled by ``torch.compile``.
    """

    batch_size: int = 64
    dtype: Precision = "float32"
    channels_last: bool = False
    fold_batch_norm: bool = False
    compile: bool = False

    def laid_out(self, values: Tensor) -> Tensor:
        """Activations or weights in this precision and, those of convolutions, in this layout."""
        layout = torch.channels_last if self.channels_last and values.dim() == 4 else torch.contiguous_format
        return values.to(dtype=getattr(torch, self.dtype)).contiguous(memory_format=layout)

    def batch(self, example_input: Tensor) -> Tensor:
        """A batch as deployed, the same image throughout, for the values do not matter."""
        return self.laid_out(example_input.expand(self.batch_size, *example_input.shape[1:]))

    def network(self, model: nn.Module) -> nn.Module:
        """A copy of a network as deployed, in eval mode; its modules keep their names unless it is compiled.

        Raises:
            LrsearchError: batch norms are to be folded into a network that cannot be traced symbolically.
        """
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        deployed = copy.deepcopy(model).eval()
        if self.fold_batch_norm:
            deployed = fold_batch_norm(deployed)
        deployed = deployed.to(getattr(torch, self.dtype)).to(memory_format=layout)
        return cast(nn.Module, torch.compile(deployed)) if self.compile else deployed
