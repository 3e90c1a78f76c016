"""ALDS for outputs: layers decomposed so that the network's predictions on calibration inputs change least.

Ours. Any folding of ALDS supplement A.6 and any number of subspaces, up to 32, that divides a layer's input channels.
The error of a layer is its change weighted by the Fisher information of the predictions: twice the Kullback-Leibler
divergence between old and new predictions, so that errors of different layers compare and their sum is minimised.
"""

from __future__ import annotations

from lrsearch.methods import base
from lrsearch.methods.one_shot.fisher import Fisher
from lrsearch.methods.one_shot.output_aware import OutputAware


class AldsOutput(OutputAware):
    """The method ``alds_output``."""

    name = "alds_output"
    max_subspaces = 32
    observer = Fisher


METHOD: base.Method = AldsOutput()
