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


@dataclass(frozen=True)
class DenseOutputs:
    """What one group of a layer puts out; everything that follows has the precision of its tensors.

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
    def important(self) -> Tensor:
        """The weight, its outputs scaled by the root of their importance."""
        return (self.root @ self.weight.flatten(1)).reshape(self.weight.shape)

    @cached_property
    def shared(self) -> Tensor:
        """(D, S): the covariance of the patches with the outputs, C W^T."""
        return self.covariance @ self.weight.flatten(1).mT

    @cached_property
    def energy(self) -> Tensor:
        """The output error of nothing at all."""
        return ((self.importance @ self.weight.flatten(1)).double() * self.shared.mT).sum()

    def without(self, kept: Tensor) -> Tensor:
        """The output errors when the first 0, 1, ... of these parts of the energy are kept."""
        return torch.cat([self.energy[None], self.energy - kept.double().cumsum(0)]).clamp_min(0)


@dataclass(frozen=True)
class FoldedOutputs:
    """What one group of a layer puts out, its patches cell by cell as the first stage of one scheme sees them.

    Attributes:
        dense: the group.
        scheme: which kernel axes the first stage owns, see ``fold``.
    """

    dense: DenseOutputs
    scheme: int

    @cached_property
    def cells(self) -> Tensor:
        """(n, e): which of the D entries of a patch the first stage sees from each cell of the second's kernel."""
        shape = self.dense.weight.shape
        return fold(torch.arange(shape[1:].numel()).reshape(1, *shape[1:]), 1, self.scheme, 1)[0, 0]

    @cached_property
    def covariance(self) -> Tensor:
        """(n, e, n, e): of the entries seen from each cell."""
        order, whole = self.cells.flatten(), self.dense.covariance
        ordered = whole if len(self.cells) == 1 else whole[order[:, None], order]
        return ordered.reshape(*self.cells.shape, *self.cells.shape)

    @cached_property
    def shared(self) -> Tensor:
        """(n, e, S): their covariance with the outputs."""
        return self.dense.shared[self.cells]

    def average(self, subspaces: int) -> Tensor:
        """(k, e / k, e / k): the covariance of the entries of each slice of channels, averaged over cells."""
        mean = self.covariance.diagonal(dim1=0, dim2=2).mean(-1)
        return diagonal_blocks(mean[None], subspaces)[0]

    def first_stage(self, subspaces: int) -> Tensor:
        """Leading right factors of the folded weight in the space whitened by the average covariance.

        With M = U S V^T R^-1 for R R^T the covariance, U^T M are the rows; from whichever Gram matrix is smaller.

        Returns:
            (r, k, e / k), the most useful kernels of each slice first.
        """
        dense = self.dense
        matrices, columns = fold(dense.important, 1, self.scheme, subspaces)[0], self.average(subspaces)
        if matrices.shape[1] <= matrices.shape[2]:
            energies, left = torch.linalg.eigh(matrices @ columns @ matrices.mT)
            rows, power = left.mT @ matrices, 0.5
        else:
            root, gram = cholesky(columns), matrices.mT @ matrices
            energies, right = torch.linalg.eigh(root.mT @ gram @ root)
            rows, power = right.mT @ (root.mT @ gram), 1.0
        # To outputs of equal variance, so that the least squares are well conditioned.
        limits = torch.finfo(energies.dtype)
        scale = energies.clamp_min((limits.eps * energies[:, -1:]).clamp_min(limits.tiny)) ** power
        kernels: Tensor = (rows / scale[..., None]).flip(1).transpose(0, 1)
        return kernels

    def fit(self, first: Tensor, known: OutputDecomposition | None = None) -> OutputDecomposition:
        """The least-squares fit of the dense output on what a first stage puts out.

        Args:
            first: its kernels (r, k, e / k), each on its own slice of channels alone.
            known: the fit for fewer of them, to go on from.
        """
        added = first if known is None else first[len(known.first) :]
        gram, shared = self._outputs(added, first)
        level = gram[:, -len(gram) :].diagonal().mean()
        if known is None:
            factor = cholesky(gram, level)
            explained = torch.linalg.solve_triangular(factor, shared, upper=False)
            return OutputDecomposition(self, first, factor, explained, self._kept(explained, added))
        size = len(known.factor)
        below = torch.linalg.solve_triangular(known.factor, gram[:, :size].mT, upper=False).mT
        corner = cholesky(gram[:, size:] - below @ below.mT, level)
        rest = torch.linalg.solve_triangular(corner, shared - below @ known.explained, upper=False)
        factor = torch.cat([torch.nn.functional.pad(known.factor, (0, len(corner))), torch.cat([below, corner], 1)])
        kept = torch.cat([known.kept, self._kept(rest, added)])
        return OutputDecomposition(self, first, factor, torch.cat([known.explained, rest]), kept)

    def convolutions(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Stages (r, k, e / k) and (S, r, k, n) as a convolution of k groups and the next have them, slice by slice.

        Returns:
            Kernels (k r, C / k, height, width) and (S, k r, height, width), each of the axes that its stage owns.
        """
        _, channels, *size = self.dense.weight.shape
        own = [side if owned else 1 for side, owned in zip(size, first_owns(self.scheme), strict=True)]
        rest = [side // owned for side, owned in zip(size, own, strict=True)]
        kernels = first.transpose(0, 1).reshape(-1, channels // first.shape[1], *own)
        return kernels, second.transpose(1, 2).reshape(len(second), -1, *rest)

    def _outputs(self, some: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances of what some kernels put out at all cells with what all do, and with the dense output."""
        (ranks, subspaces, entries), n = some.shape, len(self.cells)
        gram = first.new_empty(ranks, subspaces, n, len(first), subspaces, n)
        sliced = some.transpose(0, 1)
        for index, rows in enumerate(self.covariance):
            outputs = (sliced @ rows.reshape(subspaces, entries, -1)).reshape(-1, subspaces, entries)
            block = outputs.transpose(0, 1) @ first.permute(1, 2, 0)
            gram[:, :, index] = block.reshape(subspaces, subspaces, ranks, n, -1).permute(2, 1, 4, 0, 3)
        shared = sliced @ self.shared.reshape(n, subspaces, entries, -1)
        return gram.flatten(3).flatten(0, 2), shared.permute(2, 1, 0, 3).flatten(0, 2)

    def _kept(self, explained: Tensor, kernels: Tensor) -> Tensor:
        return (explained @ self.dense.root).square().reshape(len(kernels), -1).sum(1)


@dataclass(frozen=True)
class OutputDecomposition:
    """One group of a layer decomposed with one folding, for all ranks at once.

    The kernels of the first stage are ordered by use and a Cholesky factor of their outputs' covariance is nested, so
    that one factorization serves every rank.

    Attributes:
        folded: the group.
        first: (r, k, e / k) kernels of the first stage, each on its own slice of channels alone, the most useful of
            each slice first; e as of ``FoldedOutputs``.
        factor, explained: the Cholesky factor of the covariance of what the first stage puts out at all cells, kernel
            by kernel, and its covariance with the dense output in that factor's terms.
        kept: how much energy each rank adds.
    """

    folded: FoldedOutputs
    first: Tensor
    factor: Tensor
    explained: Tensor
    kept: Tensor

    @property
    def errors(self) -> Tensor:
        """Output error of the ranks 0, 1, ...; never rises."""
        return self.folded.dense.without(self.kept)

    def second(self, rank: int) -> Tensor:
        """The best second stage for the first ``rank`` kernels of each slice: (S, rank, k, cells of its kernel)."""
        cells, subspaces = len(self.folded.cells), self.first.shape[1]
        size = rank * subspaces * cells
        solution = torch.linalg.solve_triangular(self.factor[:size, :size].mT, self.explained[:size], upper=True)
        reshaped: Tensor = solution.mT.reshape(-1, rank, subspaces, cells)
        return reshaped


def decompose(folded: FoldedOutputs, subspaces: int = 1, ranks: int | None = None) -> OutputDecomposition:
    """Decompose one group of a layer for its outputs.

    Args:
        folded: what the group puts out.
        subspaces: number k of slices of consecutive input channels; divides C.
        ranks: how many are of interest; all by default.
    """
    return folded.fit(folded.first_stage(subspaces)[:ranks])


def least_errors(dense: DenseOutputs) -> Tensor:
    """The least output error of the ranks 0, 1, ..., that of scheme 0 in one subspace, from eigenvalues alone."""
    if dense.weight.shape[0] <= dense.covariance.shape[0]:
        gram = dense.root @ (dense.weight.flatten(1) @ dense.shared) @ dense.root
    else:
        seen = dense.important.flatten(1) @ cholesky(dense.covariance)
        gram = seen.mT @ seen
    lost = torch.linalg.eigvalsh(gram).double().clamp_min(0).cumsum(0).flip(0)
    return torch.nn.functional.pad(lost, (0, 1))


def multiply_out(first: Tensor, second: Tensor, cells: Tensor) -> Tensor:
    """The weight (S, D) of a first stage (r, k, e / k) and a second (S, r, k, n) behind one another."""
    weight = second.new_empty(len(second), cells.numel())
    for index, cell in enumerate(cells.reshape(len(cells), first.shape[1], -1)):
        weight[:, cell] = torch.einsum("srk,rke->ske", second[..., index], first)
    return weight


def cholesky(gram: Tensor, level: Tensor | None = None) -> Tensor:
    """Of matrices (..., n, n) that may be singular: with as little added to the diagonal as it takes.

    ``level`` is what that is relative to, by default the mean of each diagonal.
    """
    if level is None:
        level = gram.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    level = level.clamp_min(torch.finfo(gram.dtype).tiny)
    least = 1e-10 if gram.dtype == torch.float64 else 1e-7
    for jitter in (least, 1e-6, 1e-4, 1e-2, 1.0):
        raised = gram.clone()
        raised.diagonal(dim1=-2, dim2=-1).add_(jitter * level)
        factor, failed = torch.linalg.cholesky_ex(raised)
        if not failed.any():
            exact: Tensor = factor
            return exact
    raise LrsearchError("the covariance of a layer's inputs is not finite, expected finite calibration inputs")
