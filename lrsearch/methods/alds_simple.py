"""ALDS-Simple: a fixed number of subspaces and the same compression in every layer.

Source: ALDS supplement C.3, ablation 3.
"""

from __future__ import annotations

from lrsearch.methods import base
from lrsearch.methods.one_shot.fixed_subspaces import FixedSubspaces


class AldsSimple(FixedSubspaces):
    """The method ``alds_simple``."""

    name = "alds_simple"
    rule = "constant"


METHOD: base.Method = AldsSimple()
