"""ALDS: automatic layer-wise decomposition selector.

Source: Liebenwein, Maalouf, Gal, Feldman, Rus, "Compressing Neural Networks: Towards Determining the Optimal
Layer-wise Decomposition", NeurIPS 2021: Algorithm 1, supplement A.4. A layer is sliced into k subspaces of
consecutive input channels and each slice is decomposed by SVD; k and rank are chosen for all layers together so
that the largest relative error of a layer is as small as the budget allows.
"""

from __future__ import annotations

from lrsearch.methods import base
from lrsearch.methods.one_shot.any_subspaces import AnySubspaces


class Alds(AnySubspaces):
    """The method ``alds``."""

    name = "alds"


METHOD: base.Method = Alds()
