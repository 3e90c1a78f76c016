"""A fixed order of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelGather(nn.Module):
    """Puts channels into another order, which is kept with the weights.

    Args:
        channels: how many.
        dim: where they are, counted from the end.
    """

    index: Tensor

    def __init__(self, channels: int, dim: int, *, device: torch.device | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("index", torch.arange(channels, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Channel ``index[i]`` of the input is channel i of the output."""
        return x.index_select(self.dim, self.index)

    def extra_repr(self) -> str:
        """Show the sizes when the module is printed."""
        return f"channels={len(self.index)}, dim={self.dim}"
