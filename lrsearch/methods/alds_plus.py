"""ALDS+: ALDS with the folding of each convolution chosen too.

Source: ALDS supplement A.6: every layer has any of the four foldings of a kernel into a matrix, together with
its number of subspaces and its rank. In all four, slices are of consecutive input channels.
"""

from __future__ import annotations

from lrsearch.methods import base
from lrsearch.methods.one_shot.any_subspaces import AnySubspaces


class AldsPlus(AnySubspaces):
    """The method ``alds_plus``."""

    name = "alds_plus"
    schemes = (0, 1, 2, 3)


METHOD: base.Method = AldsPlus()
