"""SVD-Energy: SVD of every layer, all with the same relative energy.

Source: Alvarez, Salzmann, "Compression-aware Training of Deep Networks", NIPS 2017, section 3.2; Wen et al.,
"Coordinating Filters for Faster Deep Neural Networks", ICCV 2017; as compared with in ALDS supplement B.4, 2.
Energy is the sum of squared singular values. To lose the same fraction of it everywhere, as little as the budget
allows, is to minimise the largest fraction lost.
"""

from __future__ import annotations

from lrsearch.methods import base
from lrsearch.methods.one_shot.errors import ErrorMeasure, energy
from lrsearch.methods.one_shot.spectral import BudgetHyperparameters, Spectral


class SvdEnergy(Spectral):
    """The method ``svd_energy``."""

    name = "svd_energy"

    def measure(self, hyperparameters: BudgetHyperparameters) -> ErrorMeasure:
        """The relative energy that is lost, as its root."""
        return energy


METHOD: base.Method = SvdEnergy()
