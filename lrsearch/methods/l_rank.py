"""L-Rank: SVD of every layer with the ranks of the smallest sum of energy loss and cost.

Source: Idelbayev, Carreira-Perpinan, "Low-Rank Compression of Neural Nets: Learning the Rank of Each Layer", CVPR
2020, eq. 5: each layer minimises ||W - What||_F^2 + lambda C(r), here once, for the trained weights. The
multiplier lambda is the one at which the costs meet the budget.
"""

from __future__ import annotations

from lrsearch.methods import base
from lrsearch.methods.one_shot.errors import ErrorMeasure, loss
from lrsearch.methods.one_shot.spectral import BudgetHyperparameters, Spectral


class LRank(Spectral):
    """The method ``l_rank``."""

    name = "l_rank"
    rule = "sum"

    def measure(self, hyperparameters: BudgetHyperparameters) -> ErrorMeasure:
        """The energy that is lost, not relative to the layer's."""
        return loss


METHOD: base.Method = LRank()
