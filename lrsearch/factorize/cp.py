"""Canonical polyadic decomposition of a convolution: 1x1, depthwise, 1x1.

Source: Lebedev et al. 2015 (CP4: the kernel's height and width are modes of their own); Phan et al., "Stable Low-rank
Tensor Decomposition for Compression of Convolutional Neural Network" (2020), on why a plain fit has components
that are large and cancel; alternating least squares by tensorly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_STARTS = range(3)
_ITERATIONS = 100
_TOLERANCE = 1e-7
_PENALTIES = (1e-3, 1e-6)
"""On the squared norms of the factors, of a tensor of norm 1: the first keeps components from growing and cancelling,
the second, from where the first led to, is too small to bias the fit."""
_RIDGE = 1e-9


def cp_weights(weight: Tensor, groups: int, rank: int, scheme: int) -> tuple[Tensor, ...]:
    """The weights of the stages that approximate a convolution's weight, group by group.

    Args:
        weight: (S, C / groups, height, width).
        groups: of the dense layer.
        rank: number of components for each group.
        scheme: 0 keeps the kernel's axes together (CP3), 1 separates them (CP4).

    Returns:
        The first, the one or two depthwise and the last stage's weights: (groups rank, C / groups, 1, 1),
        (groups rank, 1, height, width) or (.., 1, height, 1) and (.., 1, 1, width), (S, rank, 1, 1), in the weight's
        dtype.

    Raises:
        ArithmeticError: the weight holds numbers that are not finite, or the fit diverges.
    """
    grouped = weight.detach().reshape(groups, -1, *weight.shape[1:])
    factors = [cp_factors(modes_of(tensor, scheme), rank) for tensor in grouped]
    outputs, *kernel, inputs = zip(*factors, strict=True)
    height, width = weight.shape[2:]
    sizes = [(height, width)] if scheme == 0 else [(height, 1), (1, width)]
    stages = [
        torch.cat([factor.mT for factor in inputs])[..., None, None],
        *(torch.cat([f.mT for f in part]).reshape(-1, 1, *size) for part, size in zip(kernel, sizes, strict=True)),
        torch.cat(outputs)[..., None, None],
    ]
    return tuple(stage.to(weight) for stage in stages)


def modes_of(weight: Tensor, scheme: int) -> Tensor:
    """A weight (S, C, height, width) as the tensor that CP decomposes: (S, kernel, C), or both kernel axes apart."""
    modes = weight.permute(0, 2, 3, 1)
    return modes.flatten(1, 2) if scheme == 0 else modes


def cp_factors(tensor: Tensor, rank: int, starts: Sequence[int | list[Tensor]] = _STARTS) -> list[Tensor]:
    """A CP decomposition, the best of several starts, on the CPU in double precision.

    Args:
        tensor: what to decompose.
        rank: number of components.
        starts: seeds of random factors, or factors (size, rank) of each mode that are nearly right.

    Returns:
        For each mode its factor (size, rank). Components are sorted, the largest first, and each is spread evenly
        over its factors, so that all stages train at the same pace.

    Raises:
        ArithmeticError: the tensor holds numbers that are not finite, or every start diverges.
    """
    exact = tensor.detach().to("cpu", torch.float64)
    if not bool(exact.isfinite().all()):
        raise ArithmeticError("the tensor holds numbers that are not finite")
    norm = float(exact.norm())
    if norm == 0:
        return [exact.new_zeros(size, rank) for size in exact.shape]
    fits = (_fit(exact / norm, rank, start) for start in starts)
    finite = [fit for fit in fits if all(bool(factor.isfinite().all()) for factor in fit)]
    if not finite:
        raise ArithmeticError(f"a CP decomposition of {rank} components diverges")
    best = min(finite, key=lambda factors: float((multiply_out(factors) - exact / norm).norm()))
    return balanced([best[0] * norm, *best[1:]])


def cp_fits(tensor: Tensor, ranks: Sequence[int]) -> list[list[Tensor]]:
    """The ``cp_factors`` of several ascending ranks, each fitted from components of the next one's.

    Coming from more components costs a tenth of random starts and rarely ends in a poorer fit, as adding components
    to a fit of fewer often does. So the errors bend where the rank of a noisy tensor is.
    """
    exact = tensor.detach().to("cpu", torch.float64)
    fits = [cp_factors(exact, ranks[-1], _STARTS[:1])]
    for rank in reversed(ranks[:-1]):
        fits.append(cp_factors(exact, rank, [_pruned(exact, fits[-1], rank)]))
    return fits[::-1]


def inner_products(tensor: Tensor, factors: list[Tensor]) -> Tensor:
    """<tensor, component> of each component."""
    remaining = torch.einsum("s...,sr->...r", tensor, factors[0])
    for factor in factors[1:]:
        remaining = torch.einsum("s...r,sr->...r", remaining, factor)
    return remaining


def multiply_out(factors: list[Tensor]) -> Tensor:
    """The tensor of which these are the CP factors."""
    outputs, *others = factors
    columns = others[0]
    for factor in others[1:]:
        columns = torch.einsum("ar,br->abr", columns, factor).flatten(0, 1)
    return (outputs @ columns.mT).reshape([len(factor) for factor in factors])


def balanced(factors: list[Tensor]) -> list[Tensor]:
    """The same components, the largest first, each of equal norm in all factors."""
    tiny = torch.finfo(factors[0].dtype).tiny
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    sizes = norms.prod(0)
    even = sizes ** (1 / len(factors)) / norms.clamp_min(tiny)
    order = sizes.argsort(descending=True, stable=True)
    return [(factor * scale)[:, order] for factor, scale in zip(factors, even, strict=True)]


def _pruned(tensor: Tensor, factors: list[Tensor], rank: int) -> list[Tensor]:
    """As many components, dropping one after the other whose loss the sizes of those that are left make up for best.

    The norm of a component says little: two large ones may cancel. As in optimal brain surgeon (Hassibi and Stork
    1993), without the j-th the squared error over all sizes x grows by x_j^2 / (G^-1)_jj, with G the inner products.
    """
    gram = torch.stack([factor.mT @ factor for factor in factors]).prod(0)
    ridge = _RIDGE * gram.diagonal().max().clamp_min(_RIDGE)
    inverse = torch.linalg.inv(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
    sizes = inverse @ inner_products(tensor, factors)
    kept = torch.arange(len(gram))
    while len(kept) > rank:
        least = int((sizes**2 / inverse.diagonal()).argmin())
        column = inverse[:, least] / inverse[least, least]
        others = torch.arange(len(kept)) != least
        sizes = (sizes - sizes[least] * column)[others]
        inverse = (inverse - torch.outer(column, inverse[least]))[others][:, others]
        kept = kept[others]
    return [factor[:, kept] for factor in factors]


def _fit(tensor: Tensor, rank: int, start: int | list[Tensor]) -> list[Tensor]:
    from tensorly.decomposition import parafac

    known = isinstance(start, list)
    found: Any = (None, [factor.numpy() for factor in balanced(start)]) if isinstance(start, list) else "random"
    for penalty in _PENALTIES[known:]:
        found = parafac(
            tensor.numpy(),
            rank,
            n_iter_max=_ITERATIONS,
            init=found,
            tol=_TOLERANCE,
            random_state=None if known else start,
            l2_reg=penalty,
        )
    return [torch.from_numpy(factor.copy()) for factor in found.factors]
