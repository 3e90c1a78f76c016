"""MESSI: input channels clustered around k subspaces, the same compression in every layer.

Source: Maalouf, Lang, Rus, Feldman, "Deep Learning meets Projective Clustering", ICLR 2021; as the ablation of ALDS
supplement C.3, 4: ALDS-Simple with projective clustering in place of slices of consecutive channels. The order of
the channels counts as parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lrsearch.factorize import LayerShape, layer_cost
from lrsearch.methods import base
from lrsearch.methods.one_shot.candidates import Family
from lrsearch.methods.one_shot.fixed_subspaces import FixedSubspaces
from lrsearch.methods.one_shot.timed import DENSE
from lrsearch.recipe import Factorization


class Messi(FixedSubspaces):
    """The method ``messi``."""

    name = "messi"
    rule = "constant"

    def families(
        self, name: str, shape: LayerShape, hyperparameters: Any, statistics: Mapping[str, Tensor]
    ) -> Sequence[Family]:
        """Those of consecutive slices, whose errors bound the clusters', at the cost of the order."""
        families = super().families(name, shape, hyperparameters, statistics)
        return [_clustered(family, shape) if family.subspaces > 1 else family for family in families]


def _clustered(family: Family, shape: LayerShape) -> Family:
    sizes = family.sizes + np.array([shape.in_channels, 0])
    count = int(np.searchsorted(sizes[:, 0], layer_cost(shape, DENSE).params))

    def member(index: int) -> Factorization:
        return family.member(index).model_copy(update={"kind": "messi"})

    return Family(family.subspaces, family.errors[:count], sizes[:count], member)


METHOD: base.Method = Messi()
