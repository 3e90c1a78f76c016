"""Tucker-2 decomposition with a core of several independent branches: 1x1, grouped core, 1x1.

Source: branching of Hajimolahoseini et al., "Accelerating the Low-Rank Decomposed Models" (2024), eqs. 12-17, which
drop what couples the branches. What remains is a sum of block terms (De Lathauwer 2008), and is fitted as one.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SWEEPS = 30
_LEAST_GAIN = 1e-4


def branched_weights(weight: Tensor, groups: int, r1: int, r2: int, branches: int) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of the three stages that approximate a convolution's weight, group by group.

    Singular vectors are dealt to the branches in order, then block after block is fitted to what the others leave, by
    alternating least squares.

    Args:
        weight: (S, C / groups, height, width).
        groups: of the dense layer.
        r1: input-side rank for each group, of all branches together; a multiple of ``branches``.
        r2: output-side rank for each group, likewise.
        branches: N.

    Returns:
        (first, core, last) of the shapes (groups r1, C / groups, 1, 1), (groups r2, r1 / N, height, width) and
        (S, r2, 1, 1), in the weight's dtype.
    """
    exact = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    parts = [_fitted(tensor, r1, r2, branches) for tensor in exact.reshape(groups, -1, *exact.shape[1:])]
    inputs, cores, outputs = (torch.cat(side) for side in zip(*parts, strict=True))
    return inputs[:, :, None, None].to(weight.dtype), cores.to(weight.dtype), outputs[:, :, None, None].to(weight.dtype)


def _fitted(tensor: Tensor, r1: int, r2: int, branches: int) -> tuple[Tensor, Tensor, Tensor]:
    """(r1, C), (r2, r1 / N, height, width) and (S, r2) for one group (S, C, height, width)."""
    inputs = _leading(tensor.transpose(0, 1), r1).chunk(branches, dim=1)
    outputs = _leading(tensor, r2).chunk(branches, dim=1)
    blocks = [_Block(left, right, tensor) for left, right in zip(outputs, inputs, strict=True)]
    rest = tensor - sum(block.whole() for block in blocks)
    left_over = rest.norm()
    for _ in range(_SWEEPS):
        for block in blocks:
            rest = rest + block.whole()
            block.fit(rest)
            rest = rest - block.whole()
        before, left_over = left_over, rest.norm()
        if left_over >= (1 - _LEAST_GAIN) * before:
            break
    return (
        torch.cat([block.inputs.mT for block in blocks]),
        torch.cat([block.core for block in blocks]),
        torch.cat([block.outputs for block in blocks], dim=1),
    )


class _Block:
    """One branch: orthonormal ``outputs`` (S, r2 / N) and ``inputs`` (C, r1 / N), and the best core for a tensor."""

    def __init__(self, outputs: Tensor, inputs: Tensor, tensor: Tensor) -> None:
        self.outputs, self.inputs = outputs, inputs
        self.core = self._core(tensor)

    def whole(self) -> Tensor:
        """What the branch computes, as a weight."""
        return torch.einsum("sr,rchw->schw", self.outputs, torch.einsum("rqhw,cq->rchw", self.core, self.inputs))

    def fit(self, tensor: Tensor) -> None:
        """One sweep of alternating least squares: outputs for these inputs, then inputs for these outputs."""
        reduced = torch.einsum("schw,cq->sqhw", tensor, self.inputs)
        self.outputs = _leading(reduced, self.outputs.shape[1])
        reduced = torch.einsum("schw,sr->crhw", tensor, self.outputs)
        self.inputs = _leading(reduced, self.inputs.shape[1])
        self.core = self._core(tensor)

    def _core(self, tensor: Tensor) -> Tensor:
        return torch.einsum("rchw,cq->rqhw", torch.einsum("schw,sr->rchw", tensor, self.outputs), self.inputs)


def _leading(tensor: Tensor, rank: int) -> Tensor:
    """Leading left singular vectors of the unfolding along the first axis, (channels, rank), the largest first."""
    unfolded = tensor.flatten(1).double()
    vectors: Tensor = torch.linalg.eigh(unfolded @ unfolded.mT).eigenvectors
    return vectors[:, -rank:].flip(1).to(tensor.dtype)
