"""PFP: provable filter pruning, channels go by their sensitivity, layers by the sum of theirs.

Source: Liebenwein, Baykal, Lang, Feldman, Rus, "Provable Filter Pruning for Efficient Neural Networks", ICLR 2020:
the sensitivity of a channel (Definition 1) is the largest share it has in any output of the layer that reads it; a
layer approximated from m channels drawn with probabilities in proportion to the sensitivities keeps the same error
bound everywhere if m grows with the sum of its sensitivities (Theorem 4; Algorithm 2 spends the budget so). As many
channels are left as are expected among the draws, those of the largest sensitivities rather than random ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from lrsearch.factorize import find_layers
from lrsearch.methods import base
from lrsearch.methods.base import Task
from lrsearch.methods.pruning.channels import Coupled
from lrsearch.methods.pruning.filters import Filters
from lrsearch.methods.pruning.sensitivity import observe_sensitivities, weight_sensitivities

_FEWEST, _MOST = 1e-2, 1e8
"""Draws for each unit of sensitivity."""


class Pfp(Filters):
    """The method ``pfp``."""

    name = "pfp"

    def statistics(self, model: nn.Module, task: Task) -> dict[str, Tensor]:
        """The sensitivity of every layer's input channels on the calibration inputs, ``<layer>`` -> (C,).

        Without calibration data inputs are taken to be equal.

        Raises:
            LrsearchError: the calibration data is empty.
        """
        layers, _ = find_layers(model, task.example_input)
        if task.calibration is not None:
            return observe_sensitivities(model, layers, task.calibration, task.device)
        return {
            name: weight_sensitivities(model.get_submodule(name).get_parameter("weight"), shape.groups).cpu()
            for name, shape in layers.items()
        }

    def scores(self, model: nn.Module, coupled: Coupled, statistics: Mapping[str, Tensor]) -> Tensor:
        """The largest sensitivity that a channel has for any of the layers that read it."""
        found = np.zeros(coupled.units * coupled.together)
        for name, (own, root) in coupled.consumers.items():
            if name in statistics:
                np.maximum.at(found, root, statistics[name].cpu().double().numpy()[own])
        return coupled.per_unit(torch.from_numpy(found))

    def left(self, scores: Tensor, size: float) -> int:
        """The expected number of different units among draws in proportion to the sum of sensitivities."""
        if size >= 1:
            return len(scores)
        total = float(scores.sum())
        draws = total * _FEWEST * (_MOST / _FEWEST) ** size
        expected = -torch.expm1(draws * torch.log1p(-(scores / max(total, 1e-300)).clamp_max(1 - 1e-12)))
        return max(1, round(float(expected.sum()))) if size > 0 else 1


METHOD: base.Method = Pfp()
