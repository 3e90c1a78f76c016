"""Tucker-2 decomposition of a convolution: 1x1, core, 1x1.

Source: Hajimolahoseini et al., "Accelerating the Low-Rank Decomposed Models" (2024), eqs. 4-6; the higher-order
SVD is De Lathauwer et al. 2000.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tucker2_weights(
    weight: Tensor, groups: int, r1: int, r2: int, *, refine: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of the three stages that approximate a convolution's weight, group by group.

    Args:
        weight: (S, C / groups, height, width).
        groups: of the dense layer.
        r1: input-side rank for each group, at most that of the unfolding along the input channels.
        r2: output-side rank for each group, likewise.
        refine: improve the truncated higher-order SVD by alternating least squares (HOOI, by tensorly).

    Returns:
        (first, core, last) of the shapes (groups r1, C / groups, 1, 1), (groups r2, r1, height, width) and
        (S, r2, 1, 1), in the weight's dtype.
    """
    exact = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    tensors = exact.reshape(groups, -1, *exact.shape[1:])
    outputs = _leading_vectors(tensors.flatten(2), r2)
    inputs = _leading_vectors(tensors.transpose(1, 2).flatten(2), r1)
    if refine:
        pairs = [_refined(tensor, r1, r2) for tensor in tensors]
        inputs, outputs = (torch.stack(side) for side in zip(*pairs, strict=True))
    # One factor at a time: contracted together, einsum would first multiply the two factors out.
    core = torch.einsum("gsr,gschw->grchw", outputs, tensors)
    core = torch.einsum("gcq,grchw->grqhw", inputs, core)
    first = inputs.mT.reshape(groups * r1, -1, 1, 1)
    last = outputs.reshape(weight.shape[0], r2, 1, 1)
    return first.to(weight.dtype), core.flatten(0, 1).to(weight.dtype), last.to(weight.dtype)


def _leading_vectors(unfolding: Tensor, rank: int) -> Tensor:
    """Leading left singular vectors of (groups, channels, rest): (groups, channels, rank)."""
    left: Tensor = torch.linalg.svd(unfolding, full_matrices=False)[0]
    return left[..., :rank]


def _refined(tensor: Tensor, r1: int, r2: int) -> tuple[Tensor, Tensor]:
    from tensorly.decomposition import partial_tucker

    array = tensor.to("cpu", torch.float64).numpy()
    (_, (outputs, inputs)), _ = partial_tucker(array, rank=[r2, r1], modes=[0, 1], init="svd")
    return torch.from_numpy(inputs.copy()).to(tensor), torch.from_numpy(outputs.copy()).to(tensor)
