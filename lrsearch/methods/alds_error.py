"""ALDS-Error: ALDS with a fixed number of subspaces.

Source: ALDS supplement C.3, ablation 1: line 4 of Algorithm 1, the ranks of smallest largest error, for given k.
"""

from __future__ import annotations

from lrsearch.methods import base
from lrsearch.methods.one_shot.fixed_subspaces import FixedSubspaces


class AldsError(FixedSubspaces):
    """The method ``alds_error``."""

    name = "alds_error"


METHOD: base.Method = AldsError()
