"""Decompositions of a layer that keep its *output* on given inputs, rather than its weight.

The output error of an approximation What is tr(H (W - What) C (W - What)^T), with C the covariance of the input
patches and H a positive weight on the output channels (the identity: every output counts alike). The first
stage is the projection that is optimal when the patches along the axes of the second stage are uncorrelated (for
scheme 0 there are none, so that it is the optimum: Zhang et al. 2015, "Accelerating Very Deep Convolutional
Networks for Classification and Detection", eq. 5); the second stage is the least-squares fit of the dense output
on what the first stage really puts out. Several subspaces are slices of input channels, of which each kernel of the
first stage sees one: fitted slice by slice, while the second stage is fitted to all slices together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lrsearch.errors import LrsearchError
from lrsearch.factorize.stages import first_owns
from lrsearch.factorize.svd import diagonal_blocks, fold

_NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class DenseOutputs:
    """What one group of a layer puts out, in double precision.

    Attributes:
        weight: W, (S, C, height, width).
        covariance: C, (D, D) with D = C height width in that order.
        importance: the positive definite H, (S, S).
    """

    weight: Tensor
    covariance: Tensor
    importance: Tensor

    @cached_property
    def root(self) -> Tensor:
        """Of the importance, symmetric."""
        values, vectors = torch.linalg.eigh(self.importance)
        root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
        return root

    @cached_property
    def shared(self) -> Tensor:
        """(D, S): the covariance of the patches with the outputs, C W^T."""
        return self.covariance @ self.weight.flatten(1).mT

    @cached_property
    def energy(self) -> Tensor:
        """The output error of nothing at all."""
        return ((self.importance @ self.weight.flatten(1)) * self.shared.mT).sum()


@dataclass(frozen=True)
class OutputDecomposition:
    """One group of a layer decomposed with one folding, for all ranks at once.

    Attributes:
        errors: output error of the ranks 0, 1, ...; never rises.
        first: (r k, C, height, width) kernels of the first stage, zero outside their own slice of channels: the most
            useful of each of the k slices, the second most useful of each, ....
        cells: (cells of the second stage's kernel, entries of a patch that the first stage sees from there).
        factor, explained: the Cholesky factor of the covariance of what the first stage puts out at all cells, kernel
            by kernel, and its covariance with the dense output in that factor's terms.
    """

    errors: Tensor
    first: Tensor
    cells: Tensor
    factor: Tensor
    explained: Tensor
    subspaces: int = 1

    def second(self, rank: int) -> Tensor:
        """The best second stage for the first ``rank`` kernels of each slice: (S, rank k, cells of its kernel)."""
        kernels = rank * self.subspaces
        size = kernels * len(self.cells)
        solution = torch.linalg.solve_triangular(self.factor[:size, :size].mT, self.explained[:size], upper=True)
        reshaped: Tensor = solution.mT.reshape(solution.shape[1], kernels, -1)
        return reshaped


def decompose(dense: DenseOutputs, scheme: int, subspaces: int = 1, ranks: int | None = None) -> OutputDecomposition:
    """Decompose one group of a layer for its outputs.

    The rows of the first stage are ordered by use and a Cholesky factor of their outputs' covariance is nested,
    so that one factorization serves every rank.

    Args:
        dense: what the group puts out.
        scheme: which kernel axes the first stage owns, see ``fold``.
        subspaces: number k of slices of consecutive input channels; divides C.
        ranks: how many are of interest; all by default.
    """
    shape, cells = dense.weight.shape, _cells(dense.weight.shape, scheme)
    important = (dense.root @ dense.weight.flatten(1)).reshape(shape)
    blocks = diagonal_blocks(dense.covariance[None], subspaces)[0]
    parts = zip(important.chunk(subspaces, dim=1), blocks, strict=True)
    own = torch.stack([_first_stage(*part, scheme)[:ranks] for part in parts], 1)
    first = all_entries(own.flatten(2)).reshape(-1, shape[1], *own.shape[3:])
    factor, explained = fit_second(own.flatten(2), cells, dense)
    kept = (explained @ dense.root).square().sum(1).reshape(len(own), -1).sum(1).cumsum(0)
    errors = torch.cat([dense.energy[None], dense.energy - kept]).clamp_min(0)
    return OutputDecomposition(errors, first, cells, factor, explained, subspaces)


def fit_second(own: Tensor, cells: Tensor, dense: DenseOutputs) -> tuple[Tensor, Tensor]:
    """The least-squares fit of the dense output on what the first stage puts out.

    Args:
        own: the first stage's kernels, (rank, k, entries / k), each on its own slice alone.
        cells: as in ``OutputDecomposition``.
        dense: what the group puts out.

    Returns:
        ``factor`` and ``explained`` as in ``OutputDecomposition``.
    """
    count, subspaces = own.shape[0] * own.shape[1], own.shape[1]
    gram = own.new_empty(count, len(cells), count, len(cells))
    for index, cell in enumerate(cells):
        earlier = cells[: index + 1].flatten()
        seen = dense.covariance[cell[:, None], earlier].reshape(subspaces, -1, len(earlier))
        outputs = torch.einsum("rke,ked->rkd", own, seen).reshape(count, index + 1, subspaces, -1)
        block = torch.einsum("ncke,rke->ncrk", outputs, own).flatten(2)
        gram[:, index, :, : index + 1] = block.mT
        gram[:, : index + 1, :, index] = block.permute(2, 1, 0)
    factor = cholesky(gram.flatten(2).flatten(0, 1))
    seen = dense.shared[cells].reshape(len(cells), subspaces, -1, dense.shared.shape[1])
    shared = torch.einsum("rke,ckes->rkcs", own, seen).flatten(0, 2)
    return factor, torch.linalg.solve_triangular(factor, shared, upper=False)


def multiply_out(kernels: Tensor, second: Tensor, cells: Tensor) -> Tensor:
    """The weight (S, D) of a first stage (rank, entries) and a second (S, rank, cells) behind one another."""
    weight = second.new_zeros(len(second), cells.numel())
    for index, cell in enumerate(cells):
        weight[:, cell] = second[:, :, index] @ kernels
    return weight


def cholesky(gram: Tensor) -> Tensor:
    """Of matrices (..., n, n) that may be singular: with as little added to its diagonal as it takes."""
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True) + torch.finfo(gram.dtype).tiny
    for jitter in (1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0):
        raised = gram.clone()
        raised.diagonal(dim1=-2, dim2=-1).add_(jitter * level)
        factor, failed = torch.linalg.cholesky_ex(raised)
        if not failed.any():
            exact: Tensor = factor
            return exact
    raise LrsearchError("the covariance of a layer's inputs is not finite, expected finite calibration inputs")


def own_entries(kernels: Tensor, subspaces: int) -> Tensor:
    """Kernels (r k, entries), zero outside their slices, without these zeros: (r, k, entries / k)."""
    return kernels.reshape(-1, subspaces, subspaces, kernels.shape[1] // subspaces).diagonal(dim1=1, dim2=2).mT


def all_entries(own: Tensor) -> Tensor:
    """The inverse of ``own_entries``."""
    return torch.diag_embed(own.mT, dim1=1, dim2=2).flatten(0, 1).flatten(1)


def grouped(first: Tensor, second: Tensor, subspaces: int) -> tuple[Tensor, Tensor]:
    """The stages as a convolution of k groups and the next have them.

    Args:
        first: (r k, C, height, width), zero outside the kernels' slices, as of ``OutputDecomposition``.
        second: (S, r k, cells).
        subspaces: k.

    Returns:
        Kernels (k r, C / k, height, width) slice by slice, and (S, k r, cells) to go with them.
    """
    kernels = own_entries(first.flatten(1), subspaces).transpose(0, 1).reshape(len(first), -1, *first.shape[2:])
    return kernels, second.reshape(len(second), -1, subspaces, second.shape[2]).transpose(1, 2).flatten(1, 2)


def _first_stage(weight: Tensor, covariance: Tensor, scheme: int) -> Tensor:
    """Leading right factors of the folded weight in the space whitened by the covariance of its columns.

    With M = U S V^T R^-1 for R R^T the covariance, U^T M are the rows; from whichever Gram matrix is smaller.
    """
    matrix, cells = fold(weight, 1, scheme, 1)[0, 0], _cells(weight.shape, scheme)
    columns = torch.stack([covariance[cell[:, None], cell] for cell in cells]).mean(0)
    if matrix.shape[0] <= matrix.shape[1]:
        energies, left = torch.linalg.eigh(matrix @ columns @ matrix.mT)
        rows, scale = left.mT @ matrix, energies.clamp_min(0).sqrt()
    else:
        root, gram = cholesky(columns), matrix.mT @ matrix
        scale, right = torch.linalg.eigh(root.mT @ gram @ root)
        rows = right.mT @ root.mT @ gram
    # To outputs of equal variance, so that the least squares are well conditioned.
    least = (_NEGLIGIBLE * scale[-1]).clamp_min(torch.finfo(scale.dtype).tiny)
    rows = (rows / scale.clamp_min(float(least))[:, None]).flip(0)
    owns = first_owns(scheme)
    kernel = [size if owned else 1 for size, owned in zip(weight.shape[2:], owns, strict=True)]
    kernels: Tensor = rows.reshape(len(rows), weight.shape[1], *kernel)
    return kernels


def _cells(shape: torch.Size, scheme: int) -> Tensor:
    """Which of the D entries of a patch the first stage sees from each cell of the second's kernel."""
    entries = torch.arange(shape[1] * shape[2] * shape[3]).reshape(1, *shape[1:])
    return fold(entries, 1, scheme, 1)[0, 0]
