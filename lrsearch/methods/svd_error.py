"""SVD-Error: plain SVD of every layer, ranks by ALDS's error.

Source: ALDS supplement C.3, ablation 2: ALDS-Error with one subspace.
"""

from __future__ import annotations

from lrsearch.methods import base
from lrsearch.methods.one_shot.spectral import Spectral


class SvdError(Spectral):
    """The method ``svd_error``."""

    name = "svd_error"


METHOD: base.Method = SvdError()
