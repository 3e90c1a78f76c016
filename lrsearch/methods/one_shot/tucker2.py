"""Tucker-2 decompositions as further candidates beside the singular value decompositions of a layer.

They are truncated higher-order SVDs (De Lathauwer et al. 2000): one decomposition holds those of all ranks.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lrsearch.factorize import LayerShape, layer_cost
from lrsearch.factorize.stages import max_tucker_ranks
from lrsearch.methods.one_shot.candidates import Family, sizes
from lrsearch.methods.one_shot.timed import DENSE
from lrsearch.recipe import Factorization

TuckerError: TypeAlias = Literal["proxy", "energy"]
_Floats: TypeAlias = npt.NDArray[np.float64]


def tucker_errors(weight: Tensor, groups: int, error: TuckerError) -> Tensor:
    """The error of every pair of ranks, not yet relative to the weight.

    Args:
        weight: (S, C / groups, height, width).
        groups: of the dense layer.
        error: ``energy``, the energy that is lost, exactly: the squares of the core's entries outside of the
            leading r1 x r2 block. ``proxy``, the largest singular value that either unfolding drops, of the worst
            group, as the proxy of several subspaces is that of the worst slice.

    Returns:
        (C / groups + 1, S / groups + 1): the error at the ranks (r1, r2), from (0, 0).
    """
    tensors = weight.detach().cpu().to(torch.float64)
    tensors = tensors.reshape(groups, -1, *tensors.shape[1:])
    inputs_sigma, inputs = _unfolded(tensors.transpose(1, 2).flatten(2))
    outputs_sigma, outputs = _unfolded(tensors.flatten(2))
    if error == "proxy":
        dropped = (torch.nn.functional.pad(sigma.amax(0), (0, 1)) for sigma in (inputs_sigma, outputs_sigma))
        return torch.maximum(*torch.meshgrid(*dropped, indexing="ij"))
    core = torch.einsum("gsr,gschw->grchw", outputs, tensors)
    core = torch.einsum("gcq,grchw->gqrhw", inputs, core)
    kept = torch.nn.functional.pad(core.square().sum((0, 3, 4)).cumsum(0).cumsum(1), (1, 0, 1, 0))
    return (kept[-1, -1] - kept).clamp_min(0)


def tucker_family(
    shape: LayerShape, errors: Tensor, error: TuckerError, kind: Literal["tucker2", "tt"] = "tucker2"
) -> Family:
    """The pairs of ranks that make a layer smaller and that no other pair undercuts in error and size.

    Args:
        shape: of a convolution.
        errors: as ``tucker_errors`` returns them.
        error: which they are; the family's are relative to the weight's largest singular value or its norm.
        kind: ``tt`` for tensor trains, whose energy lost is at most that of the Tucker-2 of the same ranks: the bases
            of the outputs are the same, those of the inputs are the best there are with them.
    """
    table = errors.numpy()
    # No output-side rank at all loses everything.
    table = table / (float(table[-1, 0]) or 1.0)
    table = np.sqrt(table) if error == "energy" else table
    limits = max_tucker_ranks(shape)
    r1, r2 = (each.ravel() for each in np.meshgrid(*(np.arange(1, limit + 1) for limit in limits), indexing="ij"))
    measured = _sizes(shape, r1, r2)
    lost = table[r1, r2]
    dense = sizes(layer_cost(shape, DENSE))
    smaller = (measured[:, 0] < dense[0]) & (measured[:, 1] <= dense[1])
    kept = np.union1d(*(_staircase(lost, measured[:, column], np.flatnonzero(smaller)) for column in (0, 1)))
    members = [(int(a), int(b)) for a, b in zip(r1[kept], r2[kept], strict=True)]
    return Family(0, lost[kept], measured[kept], lambda index: Factorization(kind=kind, ranks=members[index]))


def has_tucker2(shape: LayerShape) -> bool:
    """Whether Tucker-2 differs from an SVD: for kernels beyond 1x1, between several channels."""
    return shape.kernel != (1, 1) and min(max_tucker_ranks(shape)) > 1


def _unfolded(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """All singular values (groups, rows) and left singular vectors (groups, rows, rows), values descending."""
    squares, vectors = torch.linalg.eigh(matrices @ matrices.mT)
    return squares.clamp_min(0).sqrt().flip(-1), vectors.flip(-1)


def _sizes(shape: LayerShape, r1: npt.NDArray[np.int64], r2: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Parameters and multiply-adds: the stages grow with r1, r1 r2 and r2."""
    first, more_inputs, more_outputs = (
        np.array(sizes(layer_cost(shape, Factorization(kind="tucker2", ranks=ranks))))
        for ranks in ((1, 1), (2, 1), (1, 2))
    )
    core = (more_inputs - first) + (more_outputs - first) - first
    side1, side2 = more_inputs - first - core, more_outputs - first - core
    total: npt.NDArray[np.int64] = np.outer(r1, side1) + np.outer(r1 * r2, core) + np.outer(r2, side2)
    return total


def _staircase(errors: _Floats, costs: npt.NDArray[np.int64], among: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    order = among[np.lexsort((errors[among], costs[among]))]
    falling = errors[order]
    front: npt.NDArray[np.int64] = order[
        np.append(True, falling[1:] < np.minimum.accumulate(falling)[:-1])[: len(order)]
    ]
    return front
