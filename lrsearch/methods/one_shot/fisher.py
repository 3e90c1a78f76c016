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
from lrsearch.methods.one_shot.activations import Observer, add_gram, both_triangles

_FLOOR = 0.02
"""The part of the importance that all outputs share, for gradients are estimated from few inputs."""

_TOGETHER = 4, 16
"""The least and the most images whose gradients are summed."""


class Fisher(Observer):
    """``inputs``, (groups, D, D): E[G^T G]; ``outputs``, (groups, S, S): E[G G^T], a little evened out, of trace 1.

    Where the mean is ``absorbed`` G is the gradient for inputs less their mean so far.
    """

    def __init__(self, module: nn.Module, shape: LayerShape) -> None:
        super().__init__(module, shape)
        self._inputs = torch.zeros(shape.groups, self._side, self._side, dtype=torch.float64)
        self._outputs = torch.zeros(shape.groups, shape.out_per_group, shape.out_per_group, dtype=torch.float64)

    def _together(self, positions: int) -> int:
        """More where E[G^T G] takes longer than G, which is where there are more inputs than positions.

        Gradients have random signs, so that the second moments of their sums add up too.
        """
        return min(max(self._side // positions, _TOGETHER[0]), _TOGETHER[1])

    def _add(self, rows: Tensor, gradients: Tensor) -> None:
        if self.absorbed:
            rows = rows - (self._sum / self._rows)[:, None].to(rows)
        if rows.shape[1] < gradients.shape[2]:
            # With Q R the gradients G is Q (R rows), and R rows has fewer rows than G
            factor = torch.linalg.qr(gradients.mT, mode="r").R @ rows
            moment = gradients.mT @ (rows @ rows.mT) @ gradients
        else:
            factor = gradients.mT @ rows
            moment = factor @ factor.mT
        self._samples += factor.shape[1]
        self._outputs += moment.cpu()
        add_gram(self._inputs, factor)

    def _moments(self, images: int) -> dict[str, Tensor]:
        level = self._outputs.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp_min(torch.finfo(torch.float64).tiny)
        equal = torch.eye(self._outputs.shape[1], dtype=torch.float64) / self._outputs.shape[1]
        return {
            "inputs": both_triangles(self._inputs) / images,
            "outputs": (1 - _FLOOR) * self._outputs / level + _FLOOR * equal,
        }
