"""ALDS for outputs: layers decomposed so that the network's predictions on calibration inputs change least.

Ours. Any folding of ALDS supplement A.6; the error of a layer is the change of its outputs, weighted by what the
outputs mean to the predictions: with K-FAC's factors (Martens & Grosse 2015, eq. 17) twice the Kullback-Leibler
divergence between old and new predictions, so that errors of different layers compare and their sum is minimised.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lrsearch.methods import base
from lrsearch.methods.one_shot.output_aware import OutputAware

_FLOOR = 0.02
"""The part of the importance that all outputs share, for gradients are estimated from few inputs."""


class AldsOutput(OutputAware):
    """The method ``alds_output``."""

    name = "alds_output"

    def importance(self, gradients: Tensor) -> Tensor:
        """The gradients' second moments, a little evened out."""
        level = gradients.diagonal().mean().clamp_min(torch.finfo(gradients.dtype).tiny)
        equal = level * torch.eye(len(gradients), dtype=gradients.dtype)
        return (1 - _FLOOR) * gradients + _FLOOR * equal


METHOD: base.Method = AldsOutput()
