"""One number for a layer's rank: the factorization it stands for, and the largest that still saves parameters."""

from __future__ import annotations

import math
from typing import Literal

from lrsearch.factorize.layers import LayerShape
from lrsearch.factorize.stages import max_cp_rank, max_rank, max_tucker_ranks
from lrsearch.recipe import Factorization

Decomposition = Literal["tt", "cp", "cp4"]
"""``tt``: tensor train of equal ranks; ``cp``, ``cp4``: components with the kernel's axes together or apart."""


def of_rank(shape: LayerShape, decomposition: Decomposition, rank: int) -> Factorization:
    """The factorization of a rank; of a 1x1 convolution or a Linear layer, which have no kernel, an SVD.

    The two ranks of a tensor train are equal (RENE, 5.1) but for the limit that each side has.
    """
    if shape.kernel == (1, 1):
        return Factorization(kind="svd", ranks=(rank,))
    if decomposition == "tt":
        inputs, outputs = max_tucker_ranks(shape)
        return Factorization(kind="tt", ranks=(min(rank, inputs), min(rank, outputs)))
    return Factorization(kind="cp", ranks=(rank,), scheme=0 if decomposition == "cp" else 1)


def rank_cap(shape: LayerShape, decomposition: Decomposition) -> int:
    """The largest rank with which a layer has fewer parameters than dense, 0 where there is none.

    For CP the largest r with r (C + S + k^2) < C S k^2 (k + k for k^2 on the left for CP4); for a tensor train the
    positive root of k^2 r^2 + (C + S) r - C S k^2 = 0 (Hajimolahoseini et al. 2024, eq. 7 with alpha 1), or where
    r exceeds the channels of one side, whose rank it then no longer raises, the root of what is linear.
    """
    height, width = shape.kernel
    area, inputs, outputs = height * width, shape.in_per_group, shape.out_per_group
    most = inputs * outputs * area - 1
    if area == 1:
        return min(most // (inputs + outputs), max_rank(shape, 0, 1))
    if decomposition == "tt":
        return _train_cap(shape, most)
    scheme, kernel = (0, area) if decomposition == "cp" else (1, height + width)
    return min(most // (inputs + outputs + kernel), max_cp_rank(shape, scheme))


def _train_cap(shape: LayerShape, most: int) -> int:
    inputs, outputs, area = shape.in_per_group, shape.out_per_group, shape.kernel[0] * shape.kernel[1]
    limits = max_tucker_ranks(shape)
    both, smaller = inputs + outputs, min(limits)
    rank = (math.isqrt(both**2 + 4 * area * most) - both) // (2 * area)
    if rank >= smaller:
        # The side of the smaller limit stays there; of the other one the layer's cost is linear.
        fixed, free = (inputs, outputs) if limits[0] == smaller else (outputs, inputs)
        rank = (most - fixed * smaller) // (area * smaller + free)
    return min(rank, max(limits))
