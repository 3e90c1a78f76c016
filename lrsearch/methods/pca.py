"""PCA of each layer's pre-activations, the product of the energies kept as large as possible.

Source: Zhang, Zou, He, Sun, "Accelerating Very Deep Convolutional Networks for Classification and Detection", TPAMI
2016: the symmetric linear decomposition (eqs. 3-6) and the choice of ranks by the product of the layers' energies
(eq. 14), here as the sum of its logarithms.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lrsearch.methods import base
from lrsearch.methods.one_shot.activations import Covariances
from lrsearch.methods.one_shot.output_aware import OutputAware

_LEAST = 1e-12
"""Keeps the logarithm of a layer that loses all its energy finite."""


class Pca(OutputAware):
    """The method ``pca``."""

    name = "pca"
    schemes = (0,)
    observer = Covariances

    def error(self, lost: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Minus the logarithm of the fraction of the energy that is kept."""
        kept = 1 - lost / lost[0] if lost[0] > 0 else np.ones_like(lost)
        errors: npt.NDArray[np.float64] = -np.log(kept.clip(_LEAST))
        return errors.clip(0)


METHOD: base.Method = Pca()
