"""The chain of convolutions that takes a factorized layer's place: their shapes, before any weight is known."""

from __future__ import annotations

import math
from typing import NamedTuple

from lrsearch.factorize.layers import LayerShape
from lrsearch.recipe import Factorization

_POINT = (1, 1)


class Stage(NamedTuple):
    """One convolution of the chain.

    ``owns`` says for height and width whether this stage carries the dense layer's kernel, stride, padding and
    dilation along that axis; each axis is owned by exactly one stage.
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    groups: int
    owns: tuple[bool, bool]

    @property
    def params(self) -> int:
        """Number of weights."""
        return self.out_channels * (self.in_channels // self.groups) * self.kernel[0] * self.kernel[1]


def stages(shape: LayerShape, factorization: Factorization) -> tuple[Stage, ...]:
    """The chain of a factorization, from input to output; the last stage has the bias.

    ``dense``: the layer itself. ``svd``: two stages (ALDS supplement A.6) of ``groups`` subspaces for each group
    of the dense layer, all of the same rank, since a grouped convolution has equal groups. ``messi``: the same,
    behind a ``ChannelGather``, which is no convolution. ``tucker2`` and ``tt``: 1x1, core of ``groups`` branches, 1x1,
    the ranks for each group of the dense layer. ``cp``: 1x1, depthwise with the kernel (or with its height, then with
    its width, for scheme 1), 1x1, as many channels as components for each group. ``pruned``: the layer itself, with
    the channels that are left.

    Raises:
        ValueError: the ranks or subspaces do not fit the layer.
    """
    check_fits(shape, factorization)
    if factorization.kind in ("svd", "messi"):
        return _svd(shape, factorization.scheme, factorization.groups, factorization.ranks[0])
    if factorization.kind in ("tucker2", "tt"):
        r1, r2 = factorization.ranks
        return _tucker2(shape, r1, r2, factorization.groups)
    if factorization.kind == "cp":
        return _cp(shape, factorization.scheme, factorization.ranks[0])
    if factorization.kind == "pruned":
        inputs, outputs = factorization.ranks
        return (Stage(inputs, outputs, shape.kernel, factorization.groups, (True, True)),)
    return (Stage(shape.in_channels, shape.out_channels, shape.kernel, shape.groups, (True, True)),)


def first_owns(scheme: int) -> tuple[bool, bool]:
    """Whether the first of two stages owns height and width, for a folding scheme (ALDS supplement A.6)."""
    return scheme in (0, 2), scheme in (0, 1)


def _svd(shape: LayerShape, scheme: int, subspaces: int, rank: int) -> tuple[Stage, ...]:
    owns = first_owns(scheme)
    rest = (not owns[0], not owns[1])
    groups = shape.groups * subspaces
    return (
        Stage(shape.in_channels, groups * rank, _kernel(shape, owns), groups, owns),
        Stage(groups * rank, shape.out_channels, _kernel(shape, rest), shape.groups, rest),
    )


def _tucker2(shape: LayerShape, r1: int, r2: int, branches: int) -> tuple[Stage, ...]:
    groups = shape.groups
    return (
        Stage(shape.in_channels, groups * r1, _POINT, groups, (False, False)),
        Stage(groups * r1, groups * r2, shape.kernel, groups * branches, (True, True)),
        Stage(groups * r2, shape.out_channels, _POINT, groups, (False, False)),
    )


def _cp(shape: LayerShape, scheme: int, rank: int) -> tuple[Stage, ...]:
    channels = shape.groups * rank
    depthwise = [(True, True)] if scheme == 0 else [(True, False), (False, True)]
    return (
        Stage(shape.in_channels, channels, _POINT, shape.groups, (False, False)),
        *(Stage(channels, channels, _kernel(shape, owns), channels, owns) for owns in depthwise),
        Stage(channels, shape.out_channels, _POINT, shape.groups, (False, False)),
    )


def _kernel(shape: LayerShape, owns: tuple[bool, bool]) -> tuple[int, int]:
    return shape.kernel[0] if owns[0] else 1, shape.kernel[1] if owns[1] else 1


def max_rank(shape: LayerShape, scheme: int, subspaces: int) -> int:
    """The rank at which an SVD factorization is exact: the smaller side of a slice's folded matrix."""
    first = _kernel(shape, first_owns(scheme))
    area = first[0] * first[1]
    whole = shape.kernel[0] * shape.kernel[1]
    return min(shape.out_per_group * whole // area, shape.in_per_group // subspaces * area)


def max_tucker_ranks(shape: LayerShape) -> tuple[int, int]:
    """The ranks (r1, r2) at which a Tucker-2 factorization is exact: those of the weight's unfoldings, at most."""
    area = shape.kernel[0] * shape.kernel[1]
    inputs, outputs = shape.in_per_group, shape.out_per_group
    return min(inputs, outputs * area), min(outputs, inputs * area)


def max_cp_rank(shape: LayerShape, scheme: int) -> int:
    """A number of components with which CP can be exact: the product of all modes' sizes but the largest."""
    kernel = [shape.kernel[0] * shape.kernel[1]] if scheme == 0 else list(shape.kernel)
    modes = [shape.out_per_group, *kernel, shape.in_per_group]
    return math.prod(modes) // max(modes)


def check_fits(shape: LayerShape, factorization: Factorization) -> None:
    """Refuse ranks and subspaces that the layer does not have.

    Raises:
        ValueError: says which rank or number of subspaces was expected.
    """
    kind, ranks, subspaces = factorization.kind, factorization.ranks, factorization.groups
    if kind in ("svd", "messi"):
        if subspaces < 1 or shape.in_per_group % subspaces:
            raise ValueError(f"groups is {subspaces}, expected a divisor of {shape.in_per_group} input channels")
        limit = max_rank(shape, factorization.scheme, subspaces)
        if len(ranks) != subspaces or len(set(ranks)) != 1 or not 1 <= ranks[0] <= limit:
            raise ValueError(f"ranks are {ranks}, expected {subspaces} equal ranks of 1 to {limit}")
    elif kind in ("tucker2", "tt"):
        limits = max_tucker_ranks(shape)
        if len(ranks) != 2 or not all(1 <= rank <= limit for rank, limit in zip(ranks, limits, strict=True)):
            raise ValueError(f"ranks are {ranks}, expected two of at most {limits[0]} and {limits[1]}")
        if subspaces < 1 or any(rank % subspaces for rank in ranks) or (kind == "tt" and subspaces > 1):
            raise ValueError(f"groups is {subspaces}, expected a number of branches that divides ranks {ranks}")
    elif kind == "cp":
        if factorization.scheme > 1:
            raise ValueError(f"scheme is {factorization.scheme}, expected 0 or 1 for cp")
        limit = max_cp_rank(shape, factorization.scheme)
        if len(ranks) != 1 or not 1 <= ranks[0] <= limit:
            raise ValueError(f"ranks are {ranks}, expected one of 1 to {limit}")
