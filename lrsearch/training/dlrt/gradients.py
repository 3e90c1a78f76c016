"""The gradient G of a layer's weight, seen through bases and never formed.

One backward pass is enough for every step of the integrators that augment: in the bases augmented by what K and L
would gain, the weight is still the same, so that a second pass would meet the same inputs and the same G.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrsearch.training.dlrt.layers import LowRankLayer


class Move(NamedTuple):
    """Where an integrator moves a layer of factors U, S, V before S itself learns.

    Attributes:
        left, right: the new U and V.
        from_left, from_right: (G, new, old); S goes to from_left S from_right^T.
        gradient: of the new S, or None where another pass is to find it.
    """

    left: Tensor
    right: Tensor
    from_left: Tensor
    from_right: Tensor
    gradient: Tensor | None


@dataclass(frozen=True)
class _Call:
    """A layer's input, its coefficients z = V^T x, the output's gradient and U^T of that."""

    x: Tensor
    z: Tensor
    dy: Tensor
    u: Tensor


class Gradients:
    """G = dL/dW of one layer, summed over the calls of a pass, through any bases.

    All are float32 or better, the precision of the factors.

    Attributes:
        left: G V, the gradient of K = U S, (G, n, r).
        right: G^T U, the gradient of L = V S^T, (G, m, r).
        core: U^T G V, the gradient of S.
    """

    def __init__(self, layer: LowRankLayer, calls: list[_Call]) -> None:
        self.layer = layer
        self._calls = calls
        self.left = self._sum(lambda call: layer.products(call.dy, call.z))
        self.right = self._sum(lambda call: layer.input_products(call.u, call.x))
        self.core = self._sum(lambda call: layer.products(call.u, call.z))

    def through(self, left: Tensor, right: Tensor) -> Tensor:
        """P^T G Q for other matrices P (G, n, p) and Q (G, m, q)."""

        def product(call: _Call) -> Tensor:
            u = self.layer.expand(call.dy, left.to(call.dy.dtype).mT)
            return self.layer.products(u, self.layer.project(call.x, right.to(call.x.dtype)))

        return self._sum(product)

    def _sum(self, product: Callable[[_Call], Tensor]) -> Tensor:
        total = product(self._calls[0]).to(self.layer.U.dtype)
        for call in self._calls[1:]:
            total += product(call)
        return total


Integrate = Callable[[Gradients], Move]


class Tape:
    """Sees the calls of one layer in one forward and backward pass.

    As soon as the backward pass has answered the last call, the move is computed and inputs and gradients are let
    go: so training holds no more of them than a dense layer would.
    """

    def __init__(self, integrate: Integrate) -> None:
        self.move: Move | None = None
        self._integrate = integrate
        self._unanswered = 0
        self._calls: list[_Call] = []

    def product(
        self, layer: LowRankLayer, x: Tensor, left: Tensor, core: Tensor, right: Tensor, bias: Tensor | None
    ) -> Tensor:
        """U S V^T x + b; its backward pass answers with the gradient of the weight in place of that of S."""
        product: Tensor = _TapedProduct.apply(x, core, bias, left, right, (layer, self))
        return product

    def called(self) -> None:
        """The layer is called in the forward pass."""
        self._unanswered += 1

    def answered(self, layer: LowRankLayer, call: _Call) -> None:
        """The backward pass reached a call."""
        self._calls.append(call)
        self._unanswered -= 1
        if self._unanswered == 0:
            self.move = self._integrate(Gradients(layer, self._calls))
            self._calls.clear()


class _TapedProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, core: Tensor, bias: Tensor | None, left: Tensor, right: Tensor, of: tuple[Any, Tape]
    ) -> Tensor:
        layer, tape = of
        tape.called()
        z = layer.project(x, right)
        ctx.of = of
        ctx.save_for_backward(x, z, left, core, right)
        y: Tensor = layer.expand(layer.expand(z, core), left, bias)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        layer, tape = ctx.of
        x, z, left, core, right = ctx.saved_tensors
        u = layer.expand(dy, left.mT)
        dx = layer.project_adjoint(layer.expand(u, core.mT), x, right) if ctx.needs_input_grad[0] else None
        db = layer.bias_gradient(dy) if ctx.needs_input_grad[2] else None
        tape.answered(layer, _Call(x, z, dy, u))
        return dx, None, db, None, None, None
