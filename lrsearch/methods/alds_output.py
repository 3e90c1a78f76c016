"""ALDS for outputs: layers decomposed so that the network's predictions on calibration inputs change least.

Ours. Any folding of ALDS supplement A.6, in one subspace, or in 8 or 32 where a layer's input channels divide so: more
numbers gain little for twice the time. The error of a layer is its change weighted by the Fisher information of the
predictions: twice the Kullback-Leibler divergence between old and new predictions, so that errors of different layers
compare and their sum is minimised.
"""

from __future__ import annotations

from lrsearch.methods import base
from lrsearch.methods.one_shot.fisher import Fisher
from lrsearch.methods.one_shot.output_aware import OutputAware


class AldsOutput(OutputAware):
    """The method ``alds_output``."""

    name = "alds_output"
    subspaces = (1, 8, 32)
    observer = Fisher


METHOD: base.Method = AldsOutput()
