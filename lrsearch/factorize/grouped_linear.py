"""A linear layer of independent groups, which torch has for convolutions only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GroupedLinear(nn.Module):
    """Maps each of ``groups`` consecutive slices of the features by a matrix of its own; no bias.

    Its weight has the shape of a grouped 1x1 convolution's: (out_features, in_features / groups).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        groups: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_features, in_features // groups, device=device, dtype=dtype))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        rows = x.reshape(-1, self.groups, self.in_features // self.groups).transpose(0, 1)
        matrices = self.weight.view(self.groups, self.out_features // self.groups, -1)
        mapped = torch.bmm(rows, matrices.transpose(1, 2))
        return mapped.transpose(0, 1).reshape(x.shape[:-1] + (self.out_features,))  # noqa: RUF005 - exporters cannot trace unpacking

    def extra_repr(self) -> str:
        """Show the sizes when the module is printed."""
        return f"in_features={self.in_features}, out_features={self.out_features}, groups={self.groups}"
