"""Networks that answer with several named tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class OneOutput(nn.Module):
    """A network that returns a mapping, reduced to one of its entries."""

    def __init__(self, network: nn.Module, entry: str) -> None:
        super().__init__()
        self.network, self.entry = network, entry

    def forward(self, x: Tensor) -> Tensor:
        """Run the network and pick the entry."""
        outputs: Any = self.network(x)
        chosen: Tensor = outputs[self.entry]
        return chosen
