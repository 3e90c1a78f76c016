"""Tensor-train decomposition of a convolution over (outputs, kernel, inputs): 1x1, core, 1x1.

Source: Oseledets, "Tensor-train decomposition" (2011), Algorithm 1 (TT-SVD), by tensorly; Aghababaei-Harandi and
Amini, RENE (2025), eqs. 1 and 3. The network is that of Tucker-2, with other weights.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

Array: TypeAlias = npt.NDArray[np.float64]


def tt_weights(weight: Tensor, groups: int, r1: int, r2: int) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of the three stages that approximate a convolution's weight, group by group.

    Args:
        weight: (S, C / groups, height, width).
        groups: of the dense layer.
        r1: input-side rank for each group, at most that of the unfolding along the input channels.
        r2: output-side rank for each group, likewise.

    Returns:
        (first, core, last) of the shapes (groups r1, C / groups, 1, 1), (groups r2, r1, height, width) and
        (S, r2, 1, 1), in the weight's dtype.

    Raises:
        ArithmeticError: the weight holds numbers that are not finite.
    """
    from tensorly.decomposition import tensor_train

    height, width = weight.shape[2:]
    exact = weight.detach().to("cpu", torch.float64)
    if not bool(exact.isfinite().all()):
        raise ArithmeticError("the weight holds numbers that are not finite")
    trains = []
    for tensor in exact.reshape(groups, -1, *exact.shape[1:]):
        last, core, first = tensor_train(tensor.flatten(2).transpose(1, 2).numpy(), rank=[1, r2, r1, 1])
        trains.append(_spread(last[0], core, first[..., 0], r1))
    last, core, first = (torch.cat(parts).to(weight) for parts in zip(*trains, strict=True))
    core = core.mT.reshape(groups * r2, r1, height, width)
    return first[..., None, None], core, last[..., None, None]


def _spread(last: Array, core: Array, first: Array, r1: int) -> tuple[Tensor, Tensor, Tensor]:
    """The singular values, which a train has on the input side, half in the core, so that stages train alike.

    A small output-side rank can make the train's input-side rank smaller than ``r1``: zeros fill it up.
    """
    outputs, kernel, inputs = (torch.from_numpy(part.copy()) for part in (last, core, first))
    scale = inputs.norm(dim=1).clamp_min(torch.finfo(inputs.dtype).tiny).sqrt()
    missing = r1 - len(inputs)
    return outputs, pad(kernel * scale, (0, missing)), pad(inputs / scale[:, None], (0, 0, 0, missing))
