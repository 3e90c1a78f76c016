"""Singular value decompositions of a layer's weight, sliced into subspaces and folded by any scheme.

Source: ALDS, "Compressing Neural Networks: Towards Determining the Optimal Layer-wise Decomposition" (2021),
section 2.1 and supplement A.3, A.6.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from lrsearch.factorize.stages import first_owns

_Floats = npt.NDArray[np.floating[Any]]
# Axes of a weight seen as (group, out, subspace, in, height, width).
_GROUP, _OUT, _SUBSPACE, _IN, _HEIGHT, _WIDTH = range(6)


def fold(weight: Tensor, groups: int, scheme: int, subspaces: int) -> Tensor:
    """The matrices whose low-rank approximations make up a factorization.

    Args:
        weight: (S, C / groups, height, width), or (S, C) of a Linear layer.
        groups: of the dense layer.
        scheme: which kernel axes go to the columns: 0 both, 1 the width, 2 the height, 3 neither.
        subspaces: number of slices of consecutive input channels in each group; divides C / groups.

    Returns:
        (groups, subspaces, rows, columns): rows are output channels and the kernel axes of the second stage,
        columns are a slice's input channels and the kernel axes of the first.
    """
    out_channels, in_channels = weight.shape[:2]
    height, width = weight.shape[2:] if weight.dim() == 4 else (1, 1)
    cells = weight.reshape(groups, out_channels // groups, subspaces, in_channels // subspaces, height, width)
    owns = first_owns(scheme)
    columns = [axis for axis, owned in zip((_HEIGHT, _WIDTH), owns, strict=True) if owned]
    rows = [axis for axis in (_HEIGHT, _WIDTH) if axis not in columns]
    ordered = cells.permute(_GROUP, _SUBSPACE, _OUT, *rows, _IN, *columns)
    row_count = out_channels // groups
    for axis in rows:
        row_count *= cells.shape[axis]
    return ordered.reshape(groups, subspaces, row_count, -1)


def singular_values(weight: Tensor, groups: int, scheme: int, subspaces: Iterable[int]) -> dict[int, Tensor]:
    """Singular values of every folded slice, without vectors, in double precision.

    They are the square roots of the eigenvalues of the smaller Gram matrix, which is several times faster than
    an SVD; values below about 1e-8 of the largest are rounding. Slices that are nested share their Gram matrices:
    over rows that of the larger is the sum of theirs, over columns those of the smaller are its blocks.

    Args:
        weight: as for ``fold``.
        groups: as for ``fold``.
        scheme: as for ``fold``.
        subspaces: the numbers k of slices to compute them for.

    Returns:
        k -> (groups, k, min(rows, columns)), descending.
    """
    matrices = fold(weight.detach(), groups, scheme, 1).squeeze(1)
    rows, columns = matrices.shape[-2:]
    numbers = sorted(subspaces)
    with _blas().limit(limits=torch.get_num_threads(), user_api="blas"):
        squares = _over_rows(matrices, [k for k in numbers if rows <= columns // k])
        squares |= _over_columns(matrices, [k for k in numbers if rows > columns // k])
    found = {k: torch.from_numpy(np.concatenate(parts, axis=1)) for k, parts in squares.items()}
    return {k: values.clamp_min(0).sqrt().flip(-1) for k, values in found.items()}


@functools.cache
def _blas() -> ThreadpoolController:
    """NumPy's own, which PyTorch's number of threads does not reach."""
    return ThreadpoolController()


def _over_rows(matrices: Tensor, numbers: list[int]) -> dict[int, list[_Floats]]:
    """Eigenvalues of the Gram matrices over rows of each number of slices, from those of the finest slices."""
    groups, rows, _ = matrices.shape
    squares: dict[int, list[_Floats]] = {k: [] for k in numbers}
    while numbers:
        finest = numbers[-1]
        nested = [k for k in numbers if finest % k == 0]
        numbers = [k for k in numbers if finest % k]
        sums = {k: np.zeros((groups, rows, rows)) for k in nested if k < finest}
        for done, part in enumerate(matrices.chunk(finest, dim=-1), start=1):
            gram = _gram(part)
            squares[finest].append(np.linalg.eigvalsh(gram)[:, None])
            for k, total in sums.items():
                np.add(total, gram, out=total)
                if done % (finest // k) == 0:
                    squares[k].append(np.linalg.eigvalsh(total)[:, None])
                    total[:] = 0
            del gram  # else it is held while the next is made
    return squares


def _over_columns(matrices: Tensor, numbers: list[int]) -> dict[int, list[_Floats]]:
    """Eigenvalues of the Gram matrices over columns of each number of slices, from those of the coarsest slices."""
    squares: dict[int, list[_Floats]] = {k: [] for k in numbers}
    while numbers:
        coarsest = numbers[0]
        nested = [k for k in numbers if k % coarsest == 0]
        numbers = [k for k in numbers if k % coarsest]
        for part in matrices.chunk(coarsest, dim=-1):
            gram = torch.from_numpy(_gram(part))
            for k in nested:
                squares[k].append(np.linalg.eigvalsh(diagonal_blocks(gram, k // coarsest).numpy()))
            del gram
    return squares


def _gram(matrices: Tensor) -> _Floats:
    """The smaller Gram matrix (groups, side, side) of (groups, rows, columns).

    By NumPy, which computes half of a product with its own transpose.
    """
    exact = matrices.to(torch.float64).cpu().numpy()
    turned = exact.swapaxes(-1, -2)
    gram: _Floats = turned @ exact if exact.shape[-2] > exact.shape[-1] else exact @ turned
    return gram


def diagonal_blocks(gram: Tensor, parts: int) -> Tensor:
    """The diagonal blocks of (groups, side, side): (groups, parts, side / parts, side / parts)."""
    side = gram.shape[-1] // parts
    return gram.reshape(-1, parts, side, parts, side).diagonal(dim1=1, dim2=3).movedim(-1, 1)


def svd_factors(weight: Tensor, groups: int, scheme: int, subspaces: int) -> tuple[Tensor, Tensor]:
    """The singular vectors of every folded slice, those of the largest singular values first.

    The singular values are split evenly, square root to either side (Hajimolahoseini et al. 2024, eq. 3), so
    that both stages train at the same pace.

    Returns:
        (left, right) of shapes (groups, subspaces, r, rows) and (groups, subspaces, r, columns), at least in single
        precision. Their first vectors approximate a slice best, in Frobenius and 2-norm.
    """
    exact = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    left, values, right = torch.linalg.svd(fold(exact, groups, scheme, subspaces), full_matrices=False)
    root = values.sqrt()[..., None]
    return left.mT * root, right * root


def svd_weights(weight: Tensor, groups: int, scheme: int, subspaces: int, rank: int) -> tuple[Tensor, Tensor]:
    """The weights of the two stages that approximate ``weight`` best, slice by slice; see ``stage_weights``."""
    left, right = svd_factors(weight, groups, scheme, subspaces)
    return stage_weights(weight, left[..., :rank, :], right[..., :rank, :], scheme)


def stage_weights(weight: Tensor, left: Tensor, right: Tensor, scheme: int) -> tuple[Tensor, Tensor]:
    """The weights of the two stages that singular vectors make up.

    Args:
        weight: of the dense layer; its shape and dtype count.
        left: as ``svd_factors`` gives them, as many vectors as the rank.
        right: likewise.
        scheme: as for ``fold``.

    Returns:
        (first, second) of the shapes that ``stages`` gives, in the weight's dtype, and 4-dimensional even for a
        Linear layer.
    """
    groups, subspaces, rank = right.shape[:3]
    height, width = weight.shape[2:] if weight.dim() == 4 else (1, 1)
    owns = first_owns(scheme)
    first_kernel = (height if owns[0] else 1, width if owns[1] else 1)
    second_kernel = (height // first_kernel[0], width // first_kernel[1])
    out_per_group = weight.shape[0] // groups
    first = right.reshape(groups * subspaces * rank, weight.shape[1] // subspaces, *first_kernel)
    second = left.mT.reshape(groups, subspaces, out_per_group, *second_kernel, rank).permute(0, 2, 1, 5, 3, 4)
    second = second.reshape(weight.shape[0], subspaces * rank, *second_kernel)
    return first.to(weight.dtype), second.to(weight.dtype)
