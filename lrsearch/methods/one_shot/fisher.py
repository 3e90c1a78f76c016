"""What a change of a layer's weight does to the predictions, as the Kronecker product of two small matrices.

Source: the Fisher information of the weight is the second moment of its gradient G, one (S, D) matrix for each image;
E[G G^T] x E[G^T G] / tr E[G G^T] is the Kronecker approximation of Gupta, Koren, Singer 2018, "Shampoo", close to the
best there is (Morwani et al. 2024, "A New Perspective on Shampoo's Preconditioner"). Unlike K-FAC's (Grosse & Martens
2016) it counts images by how open their predictions are and knows that errors at neighbouring positions add up.
Nothing here reads a label.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrsearch.factorize import LayerShape
from lrsearch.methods.one_shot.activations import Observer

_FLOOR = 0.02
"""The part of the importance that all outputs share, for gradients are estimated from few inputs."""


class Fisher(Observer):
    """``inputs``, (groups, D, D): E[G^T G]; ``outputs``, (groups, S, S): E[G G^T], a little evened out, of trace 1.

    Where the mean is ``absorbed`` G is the gradient for inputs less their mean so far.
    """

    together = 4  # gradients have random signs, so that the second moments of their sums add up too

    def __init__(self, module: nn.Module, shape: LayerShape) -> None:
        super().__init__(module, shape)
        self._inputs = torch.zeros(shape.groups, self._side, self._side, dtype=torch.float64)
        self._outputs = torch.zeros(shape.groups, shape.out_per_group, shape.out_per_group, dtype=torch.float64)

    def _add(self, rows: Tensor, gradients: Tensor) -> None:
        if self.absorbed:
            rows = rows - (self._sum / self._rows)[:, None].to(rows)
        weight_gradient = gradients.mT @ rows
        self._inputs += (weight_gradient.mT @ weight_gradient).cpu()
        self._outputs += (weight_gradient @ weight_gradient.mT).cpu()

    def _moments(self, images: int) -> dict[str, Tensor]:
        level = self._outputs.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp_min(torch.finfo(torch.float64).tiny)
        equal = torch.eye(self._outputs.shape[1], dtype=torch.float64) / self._outputs.shape[1]
        return {
            "inputs": self._inputs / images,
            "outputs": (1 - _FLOOR) * self._outputs / level + _FLOOR * equal,
        }
