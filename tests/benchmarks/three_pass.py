"""Dynamical low-rank training as it is written down: a pass each for K, L and S, plain autograd, one thing at a time.

The yardstick of ``dlrt_step.py``; it computes the same step as the product does.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Leaves = list[Tensor]


class ThreePass:
    """A perceptron of ``depth`` low-rank layers and a dense last one, trained by SGD at a rank."""

    def __init__(self, sizes: list[int], last: nn.Linear, rank: int) -> None:
        def basis(size: int) -> Tensor:
            return torch.linalg.qr(torch.randn(size, rank)).Q

        self.rank, self.last = rank, last
        self.left = [basis(size) for size in sizes[1:]]
        self.right = [basis(size) for size in sizes[:-1]]
        self.core = [torch.diag(torch.linspace(1, 0.1, rank)) for _ in self.left]
        self.biases = [torch.zeros(size, requires_grad=True) for size in sizes[1:]]

    def step(self, x: Tensor, y: Tensor, lr: float) -> None:
        """K, L, augmentation, S with biases and the last layer, truncation."""
        k = self._learn([u @ s for u, s in zip(self.left, self.core, strict=True)], x, y, lr, self._k_layer)
        el = self._learn([v @ s.mT for v, s in zip(self.right, self.core, strict=True)], x, y, lr, self._l_layer)
        left = [torch.linalg.qr(torch.cat([new, u], 1)).Q for new, u in zip(k, self.left, strict=True)]
        right = [torch.linalg.qr(torch.cat([new, v], 1)).Q for new, v in zip(el, self.right, strict=True)]
        old = zip(left, self.left, self.core, right, self.right, strict=True)
        core = [(u1.mT @ u) @ s @ (v1.mT @ v).mT for u1, u, s, v1, v in old]
        self.left, self.right = left, right
        others = [*self.biases, *self.last.parameters()]
        self.core = self._learn(core, x, y, lr, self._s_layer, others)
        for i, s in enumerate(self.core):
            p, sigma, q = torch.linalg.svd(s)
            self.left[i] = self.left[i] @ p[:, : self.rank]
            self.right[i] = self.right[i] @ q.mT[:, : self.rank]
            self.core[i] = torch.diag(sigma[: self.rank])

    def _k_layer(self, i: int, k: Tensor, x: Tensor) -> Tensor:
        return x @ self.right[i] @ k.mT + self.biases[i]

    def _l_layer(self, i: int, el: Tensor, x: Tensor) -> Tensor:
        return x @ el @ self.left[i].mT + self.biases[i]

    def _s_layer(self, i: int, s: Tensor, x: Tensor) -> Tensor:
        return x @ self.right[i] @ s.mT @ self.left[i].mT + self.biases[i]

    def _learn(
        self,
        at: Leaves,
        x: Tensor,
        y: Tensor,
        lr: float,
        layer: Callable[[int, Tensor, Tensor], Tensor],
        others: Leaves | None = None,
    ) -> Leaves:
        leaves = [leaf.detach().requires_grad_() for leaf in at]
        outputs = x
        for i, leaf in enumerate(leaves):
            outputs = torch.relu(layer(i, leaf, outputs))
        parameters = [*leaves, *(others or [])]
        gradients = torch.autograd.grad(cross_entropy(self.last(outputs), y), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= lr * gradient
        return [leaf.detach() for leaf in leaves]
