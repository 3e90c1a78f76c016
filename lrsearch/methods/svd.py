"""SVD of every layer, the same compression in each.

Source: Denton, Zaremba, Bruna, LeCun, Fergus, "Exploiting Linear Structure Within Convolutional Networks for
Efficient Evaluation", NIPS 2014, as compared with in ALDS supplement B.4, 3.
"""

from __future__ import annotations

from lrsearch.methods import base
from lrsearch.methods.one_shot.spectral import Spectral


class Svd(Spectral):
    """The method ``svd``."""

    name = "svd"
    rule = "constant"


METHOD: base.Method = Svd()
