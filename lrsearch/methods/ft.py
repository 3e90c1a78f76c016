"""FT: filter thresholding, the filters of the smallest norm go, the same fraction of every layer.

Source: Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017, sections 3.1 and 3.3
(filters that a residual sum couples go together), with the Euclidean norm as in ALDS supplement B.4, 5.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lrsearch.methods import base
from lrsearch.methods.pruning.channels import Coupled
from lrsearch.methods.pruning.filters import Filters


class Ft(Filters):
    """The method ``ft``."""

    name = "ft"

    def scores(self, model: nn.Module, coupled: Coupled, statistics: Mapping[str, Tensor]) -> Tensor:
        """Norms of filters, added up over the layers whose filters go together."""
        total = torch.zeros(coupled.units * coupled.together, dtype=torch.float64)
        for name, (own, root) in coupled.producers.items():
            weight = model.get_submodule(name).get_parameter("weight").detach().cpu().double()
            total.index_add_(0, torch.tensor(root), weight.flatten(1).norm(dim=1)[own])
        return coupled.per_unit(total)

    def left(self, scores: Tensor, size: float) -> int:
        """The same fraction of every layer."""
        return max(1, round(size * len(scores)))


METHOD: base.Method = Ft()
