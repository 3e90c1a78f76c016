"""Linear and Conv2d layers whose weight is held as W = U S V^T, with orthonormal U and V.

Source: Schotthöfer, Zangrando, Kusch, Ceruti, Tudisco, "Low-rank lottery tickets: finding efficient low-rank neural
networks via matrix differential equations" (NeurIPS 2022). A convolution's weight is the matrix of its outputs by the
unfolded inputs of one group; it is never unfolded, but computed as a k x k convolution to r channels and a 1x1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrsearch.factorize.layers import Layer
from lrsearch.factorize.svd import fold


class Recorder(Protocol):
    """What takes over the multiplication to see the gradients that its backward pass meets."""

    def product(
        self, layer: LowRankLayer, x: Tensor, left: Tensor, core: Tensor, right: Tensor, bias: Tensor | None
    ) -> Tensor:
        """U S V^T x + b of a prepared input, before ``finish``."""


class LowRankLayer(nn.Module, ABC):
    """A layer of weight U S V^T; U and V are buffers that integrators move, S and the bias are parameters.

    G is the number of groups of a convolution, 1 for a Linear layer; n and m are the outputs and (unfolded) inputs
    of one group. Factors are float32 or better whatever the precision of the passes.

    Attributes:
        U: (G, n, r), orthonormal columns, each in one piece of memory.
        S: (G, r, r).
        V: (G, m, r), likewise.
        bias: (G n,) or None.
        tape: what sees the gradients of the factors in the next backward pass; None where only S learns.
    """

    U: Tensor
    V: Tensor

    def __init__(self, layer: Layer, left: Tensor, core: Tensor, right: Tensor) -> None:
        """Take the place of ``layer``, which gives the bias and its geometry, with a weight of these factors."""
        super().__init__()
        self.register_buffer("U", _by_columns(left))
        self.register_buffer("V", _by_columns(right))
        self.S = nn.Parameter(core)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        self.tape: Recorder | None = None

    @property
    def rank(self) -> int:
        """The number of columns of U."""
        return self.U.shape[-1]

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m) of one group."""
        return self.U.shape[-2], self.V.shape[-2]

    def set_factors(self, left: Tensor, core: Tensor, right: Tensor) -> None:
        """Replace U, S and V; S stays the same parameter, without a gradient."""
        self.U, self.V = _by_columns(left), _by_columns(right)
        self.S.data, self.S.grad = core, None

    def weight(self) -> Tensor:
        """U S V^T, (G, n, m)."""
        return self.U @ self.S.detach() @ self.V.mT

    def stages(self) -> tuple[Tensor, Tensor]:
        """The weights of the two plain layers that compute the same, singular values split evenly.

        Returns:
            (first, second): (G, r, m) and (G, n, r).
        """
        left, values, right = torch.linalg.svd(self.S.detach(), full_matrices=False)
        root = values.sqrt()
        return root[..., :, None] * (right @ self.V.mT), (self.U @ left) * root[..., None, :]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer, as the dense one would."""
        kind = x.device.type
        x = self.prepare(x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x)
        left, core, right = (factor.to(x.dtype) for factor in (self.U, self.S, self.V))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.tape is not None and torch.is_grad_enabled():
            return self.finish(self.tape.product(self, x, left, core, right, bias), x)
        return self.finish(self.expand(self.expand(self.project(x, right), core), left, bias), x)

    def prepare(self, x: Tensor) -> Tensor:
        """The input as ``project`` takes it."""
        return x

    def finish(self, y: Tensor, x: Tensor) -> Tensor:
        """The output of ``expand`` in the shape that belongs to the prepared input."""
        return y

    @abstractmethod
    def project(self, x: Tensor, right: Tensor) -> Tensor:
        """Coefficients z = V^T x of an input in a basis (G, m, k)."""

    @abstractmethod
    def project_adjoint(self, z: Tensor, x: Tensor, right: Tensor) -> Tensor:
        """The gradient V z of an input of the shape of ``x``, given that of its coefficients."""

    @abstractmethod
    def input_products(self, z: Tensor, x: Tensor) -> Tensor:
        """Sum of x z^T over images and positions, (G, m, k)."""

    @abstractmethod
    def expand(self, z: Tensor, left: Tensor, bias: Tensor | None = None) -> Tensor:
        """Multiply coefficients at each position by a matrix (G, n, k)."""

    @abstractmethod
    def products(self, y: Tensor, z: Tensor) -> Tensor:
        """Sum of y z^T over images and positions, (G, n, k)."""

    @abstractmethod
    def bias_gradient(self, y: Tensor) -> Tensor:
        """Sum over images and positions, (G n,)."""


class LowRankLinear(LowRankLayer):
    """A Linear layer; inputs of more than two dimensions are rows of a matrix meanwhile."""

    def prepare(self, x: Tensor) -> Tensor:
        """The input itself: products broadcast."""
        return x

    def project(self, x: Tensor, right: Tensor) -> Tensor:
        """X V."""
        return _to_few(x, right[0])

    def project_adjoint(self, z: Tensor, x: Tensor, right: Tensor) -> Tensor:
        """Z V^T."""
        return z @ right[0].mT

    def input_products(self, z: Tensor, x: Tensor) -> Tensor:
        """X^T Z."""
        return self.products(x, z)

    def expand(self, z: Tensor, left: Tensor, bias: Tensor | None = None) -> Tensor:
        """Z U^T + b."""
        if bias is None and left.shape[-2] < left.shape[-1]:
            return _to_few(z, left[0].mT)
        return functional.linear(z, left[0], bias)

    def products(self, y: Tensor, z: Tensor) -> Tensor:
        """Y^T Z, column by column, as bases are."""
        return (z.flatten(0, -2).mT @ y.flatten(0, -2))[None].mT

    def bias_gradient(self, y: Tensor) -> Tensor:
        """Sum over rows."""
        return y.flatten(0, -2).sum(0)


class LowRankConv2d(LowRankLayer):
    """A Conv2d; the k x k convolution to r channels carries stride, padding and dilation."""

    def __init__(self, layer: nn.Conv2d, left: Tensor, core: Tensor, right: Tensor) -> None:
        super().__init__(layer, left, core, right)
        self.groups = layer.groups
        self.kernel = (layer.in_channels // layer.groups, *layer.kernel_size)
        self.mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        # Only a convolution of zeros that are the same on both sides pads by itself.
        self.pads_itself = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        self.edges = list(layer._reversed_padding_repeated_twice)
        self.geometry: dict[str, Any] = {
            "stride": list(layer.stride),
            "padding": list(layer.padding) if self.pads_itself else [0, 0],
            "dilation": list(layer.dilation),
        }

    def prepare(self, x: Tensor) -> Tensor:
        """The input with what the convolution does not pad by itself."""
        return x if self.pads_itself else functional.pad(x, self.edges, self.mode)

    def project(self, x: Tensor, right: Tensor) -> Tensor:
        """The k x k convolution."""
        return functional.conv2d(x, self._kernel(right), None, **self.geometry, groups=self.groups)

    def project_adjoint(self, z: Tensor, x: Tensor, right: Tensor) -> Tensor:
        """Its gradient with respect to the input."""
        return _backward(z, x, self._kernel(right), self.geometry, self.groups, of_input=True)

    def input_products(self, z: Tensor, x: Tensor) -> Tensor:
        """Its gradient with respect to the kernel."""
        channels = z.shape[1] // self.groups
        kernel = x.new_empty(z.shape[1], *self.kernel)
        gradient = _backward(z, x, kernel, self.geometry, self.groups, of_input=False)
        return gradient.reshape(self.groups, channels, -1).mT

    def expand(self, z: Tensor, left: Tensor, bias: Tensor | None = None) -> Tensor:
        """A 1x1 convolution."""
        return functional.conv2d(z, left.reshape(-1, left.shape[-1], 1, 1), bias, groups=self.groups)

    def products(self, y: Tensor, z: Tensor) -> Tensor:
        """The gradient of a 1x1 convolution with respect to its kernel."""
        kernel = z.new_empty(y.shape[1], z.shape[1] // self.groups, 1, 1)
        gradient = _backward(y, z, kernel, _POINT, self.groups, of_input=False)
        return gradient.reshape(self.groups, y.shape[1] // self.groups, -1)

    def bias_gradient(self, y: Tensor) -> Tensor:
        """Sum over images and positions."""
        return y.sum((0, 2, 3))

    def _kernel(self, right: Tensor) -> Tensor:
        return right.mT.reshape(-1, *self.kernel)


def _to_few(x: Tensor, matrix: Tensor) -> Tensor:
    """X M as (M^T X^T)^T: of the two orders of the same product the faster one where M has few columns."""
    rows = x.reshape(-1, x.shape[-1])
    return (matrix.mT @ rows.mT).mT.reshape(*x.shape[:-1], matrix.shape[-1])


def _by_columns(basis: Tensor) -> Tensor:
    """The same matrix, each column in one piece: with few and long columns products are up to four times faster so."""
    return basis.mT.contiguous().mT


_POINT: dict[str, Any] = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}


def _backward(
    outputs: Tensor, inputs: Tensor, kernel: Tensor, geometry: dict[str, Any], groups: int, *, of_input: bool
) -> Tensor:
    """The gradient of a convolution with respect to its input or its kernel."""
    stride, padding, dilation = geometry["stride"], geometry["padding"], geometry["dilation"]
    mask = [of_input, not of_input, False]
    gradients = torch.ops.aten.convolution_backward(
        outputs, inputs, kernel, None, stride, padding, dilation, False, [0, 0], groups, mask
    )
    gradient: Tensor = gradients[0 if of_input else 1]
    return gradient


def low_rank(layer: Layer, rank: int) -> LowRankLayer:
    """The best approximation of a layer of at most that rank, in its mode, ready to be trained.

    Raises:
        torch.linalg.LinAlgError: the weight holds numbers that are not finite.
    """
    weight, groups = layer.weight.detach(), layer.groups if isinstance(layer, nn.Conv2d) else 1
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    left, values, right = torch.linalg.svd(fold(exact, groups, 0, 1)[:, 0], full_matrices=False)
    factors = left[..., :rank], values[..., :rank].diag_embed(), right[..., :rank, :].mT
    made = LowRankLinear(layer, *factors) if isinstance(layer, nn.Linear) else LowRankConv2d(layer, *factors)
    return made.train(layer.training)
