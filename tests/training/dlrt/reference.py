"""Slow and plain statements of what low-rank training must compute, on dense weights with torch's own gradients."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lrsearch.factorize.layers import Layer
from lrsearch.training.dlrt.layers import LowRankLayer


class Factors(NamedTuple):
    """U, S, V of one group, or of all."""

    left: Tensor
    core: Tensor
    right: Tensor


def factors(layer: LowRankLayer) -> Factors:
    return Factors(layer.U.clone(), layer.S.detach().clone(), layer.V.clone())


def product(of: Factors) -> Tensor:
    return of.left @ of.core @ of.right.mT


def dense_output(layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
    """The layer's output with a weight (G, n, m) in place of its own."""
    output: Tensor = functional_call(layer, {"weight": weight.reshape(layer.weight.shape)}, (x,), strict=False)
    return output


def gradient_of(at: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def orthonormal(matrix: Tensor) -> Tensor:
    return torch.linalg.qr(matrix).Q


def three_pass_step(model: nn.Sequential, all_factors: list[Factors], x: Tensor, y: Tensor, lr: float) -> list[Factors]:
    """Schotthöfer et al. 2022, Algorithm 1 before truncation, by SGD: K, L and S each by a pass of its own.

    Biases learn in the last pass. ``model`` is a sequence of dense layers and activations.
    """

    def loss(weights: list[Tensor]) -> Tensor:
        outputs, remaining = x, iter(weights)
        for module in model:
            outputs = dense_output(module, next(remaining), outputs) if isinstance(module, Layer) else module(outputs)
        return cross_entropy(outputs, y)

    def learn(leaves: list[Tensor], weights: Callable[[list[Tensor]], list[Tensor]], *more: Tensor) -> list[Tensor]:
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        gradients = torch.autograd.grad(loss(weights(leaves)), [*leaves, *more])
        with torch.no_grad():
            for parameter, gradient in zip(more, gradients[len(leaves) :], strict=True):
                parameter -= lr * gradient
        return [leaf.detach() - lr * gradient for leaf, gradient in zip(leaves, gradients, strict=False)]

    pairs = list(all_factors)
    new_k = learn([f.left @ f.core for f in pairs], lambda ks: [k @ f.right.mT for k, f in zip(ks, pairs, strict=True)])
    new_l = learn(
        [f.right @ f.core.mT for f in pairs], lambda ls: [f.left @ one.mT for one, f in zip(ls, pairs, strict=True)]
    )
    left = [orthonormal(torch.cat([k, f.left], -1)) for k, f in zip(new_k, pairs, strict=True)]
    right = [orthonormal(torch.cat([one, f.right], -1)) for one, f in zip(new_l, pairs, strict=True)]
    cores = [u.mT @ f.left @ f.core @ (v.mT @ f.right).mT for u, v, f in zip(left, right, pairs, strict=True)]
    biases = [module.bias for module in model if isinstance(module, Layer) and module.bias is not None]
    new_s = learn(cores, lambda ss: [u @ s @ v.mT for u, s, v in zip(left, ss, right, strict=True)], *biases)
    return [Factors(*parts) for parts in zip(left, new_s, right, strict=True)]
