"""The weights of a layer at all its candidate ranks, and their mixtures.

Tensor trains and SVDs are nested: one factorization holds all candidates, the one of rank r being its first r parts,
and a mixture is the product of factors whose parts are weighted by how likely each is kept: part j by the
probabilities of all r > j. So a search stores one factorization for each layer, not one for each candidate. CP is not
nested, but small.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lrsearch.factorize.cp import cp_fits, inner_products, modes_of, multiply_out
from lrsearch.factorize.layers import LayerShape
from lrsearch.factorize.ranks import Decomposition
from lrsearch.factorize.stages import max_tucker_ranks
from lrsearch.factorize.tucker import tucker2_weights


class CandidateWeights(ABC):
    """The candidates of one layer, each a best fit of its rank.

    Attributes:
        ranks: (K,) ascending, the rank of each candidate.
        factors: what the candidates are made of, scaled to a weight of norm 1.
    """

    ranks: Tensor
    factors: list[Tensor]

    def __init__(self, weight: Tensor, ranks: Sequence[int]) -> None:
        self._weight = weight.detach()
        self._norm = self._weight.norm().clamp_min(torch.finfo(weight.dtype).tiny)
        self.ranks = torch.tensor(ranks, device=weight.device)

    @abstractmethod
    def mixture(self, probabilities: Tensor) -> Tensor:
        """The weight sum_r p_r What_r, in the shape of the layer's, from (K,) probabilities."""

    @abstractmethod
    def errors(self) -> Tensor:
        """||W - What_r||_F^2 / ||W||_F^2 of each candidate, (K,)."""

    def loss(self, probabilities: Tensor, objective: str) -> Tensor:
        """Relative decomposition loss: of the candidates' errors their mean, or for ``paper`` that of the mixture."""
        if objective == "paper":
            relative: Tensor = (self._weight - self.mixture(probabilities)).norm() / self._norm
            return relative**2
        return (probabilities * self.errors()).sum()


class TrainSlices(CandidateWeights):
    """A tensor train in canonical form, or an SVD: singular bases on both sides, and a core sliced on both.

    The bases of the truncated higher-order SVD do not depend on the rank, and with them the core is the least-squares
    fit for all slices at once (De Lathauwer et al. 2000). The error of a slice is what of the core it leaves out.
    """

    def __init__(self, weight: Tensor, shape: LayerShape, ranks: Sequence[int]) -> None:
        super().__init__(weight, ranks)
        height, width = shape.kernel
        kernels = self._weight.reshape(shape.out_channels, shape.in_per_group, height, width)
        inputs, outputs = (min(ranks[-1], limit) for limit in max_tucker_ranks(shape))
        first, core, last = tucker2_weights(kernels / self._norm, shape.groups, inputs, outputs)
        groups = shape.groups
        self.factors = [
            last.reshape(groups, -1, outputs),
            core.reshape(groups, outputs, inputs, height * width),
            first.reshape(groups, inputs, -1),
        ]
        indices = [torch.arange(size, device=weight.device) for size in (outputs, inputs)]
        self._part = torch.maximum(indices[0][:, None], indices[1])

    def mixture(self, probabilities: Tensor) -> Tensor:  # noqa: D102
        last, core, first = self.factors
        kept = self._kept(probabilities, int(self._part.max()) + 1)[self._part]
        inner = torch.einsum("gsr,grqk->gsqk", last, core * kept[:, :, None])
        mixed: Tensor = torch.einsum("gsqk,gqc->gsck", inner, first) * self._norm
        return mixed.reshape(self._weight.shape)

    def errors(self) -> Tensor:  # noqa: D102
        squares = (self.factors[1] ** 2).sum((0, 3))
        by_part = squares.new_zeros(int(self._part.max()) + 1).index_add(0, self._part.flatten(), squares.flatten())
        kept = by_part.cumsum(0)[(self.ranks - 1).clamp_max(len(by_part) - 1)]
        return (1 - kept).clamp_min(0)

    def _kept(self, probabilities: Tensor, parts: int) -> Tensor:
        """(parts,): the probability that part j = 0, 1, ... belongs to the candidate."""
        of_rank = probabilities.new_zeros(parts).index_add(0, self.ranks.clamp_max(parts) - 1, probabilities)
        return of_rank.flip(0).cumsum(0).flip(0)


class CpFits(CandidateWeights):
    """A CP decomposition for each candidate: the best of rank r is no part of the best of a higher rank."""

    def __init__(self, weight: Tensor, shape: LayerShape, ranks: Sequence[int], scheme: int) -> None:
        super().__init__(weight, ranks)
        kernels = (self._weight / self._norm).reshape(shape.groups, shape.out_per_group, -1, *shape.kernel)
        self._groups = [modes_of(part, scheme) for part in kernels]
        self._modes = self._groups[0].dim()
        self._candidate = torch.arange(len(ranks), device=weight.device).repeat_interleave(self.ranks)
        self.factors = [
            torch.cat(parts, dim=1).to(weight)
            for tensor in self._groups
            for parts in zip(*cp_fits(tensor, ranks), strict=True)
        ]

    def mixture(self, probabilities: Tensor) -> Tensor:  # noqa: D102
        weights = probabilities[self._candidate]
        parts = [multiply_out([outputs * weights, *rest]) for outputs, *rest in self._by_group()]
        mixed: Tensor = torch.stack(parts).flatten(2, -2).transpose(-2, -1) * self._norm
        return mixed.reshape(self._weight.shape)

    def errors(self) -> Tensor:
        """From inner products alone: of the components with the weight, and with each other."""
        total = self.factors[0].new_ones(len(self.ranks))
        for tensor, factors in zip(self._groups, self._by_group(), strict=True):
            projected = total.new_zeros(len(total)).index_add(0, self._candidate, inner_products(tensor, factors))
            fits = zip(*(torch.split(factor, self.ranks.tolist(), dim=1) for factor in factors), strict=True)
            squares = [torch.stack([factor.mT @ factor for factor in fit]).prod(0).sum() for fit in fits]
            total = total + torch.stack(squares) - 2 * projected
        return total

    def _by_group(self) -> list[list[Tensor]]:
        return [self.factors[i : i + self._modes] for i in range(0, len(self.factors), self._modes)]


class WithDense(CandidateWeights):
    """Other candidates, and the dense layer as one of the rank that follows the largest which saves anything."""

    def __init__(self, weight: Tensor, smaller: CandidateWeights, rank: int) -> None:
        super().__init__(weight, [*smaller.ranks.tolist(), rank])
        self._smaller = smaller
        self.factors = smaller.factors

    def mixture(self, probabilities: Tensor) -> Tensor:  # noqa: D102
        return self._smaller.mixture(probabilities[:-1]) + probabilities[-1] * self._weight

    def errors(self) -> Tensor:  # noqa: D102
        errors = self._smaller.errors()
        return torch.cat([errors, errors.new_zeros(1)])


def candidate_weights(
    weight: Tensor, shape: LayerShape, decomposition: Decomposition, ranks: Sequence[int], dense: int
) -> CandidateWeights:
    """The candidates of a layer; of a 1x1 convolution or a Linear layer those of its SVD.

    Args:
        weight: of the layer.
        shape: of the layer.
        decomposition: of convolutions.
        ranks: ascending, the first below ``dense``.
        dense: the rank that stands for the dense layer.

    Raises:
        ArithmeticError: a CP decomposition diverges.
    """
    if ranks[-1] == dense:
        return WithDense(weight, candidate_weights(weight, shape, decomposition, ranks[:-1], dense), dense)
    if shape.kernel == (1, 1) or decomposition == "tt":
        return TrainSlices(weight, shape, ranks)
    return CpFits(weight, shape, ranks, 0 if decomposition == "cp" else 1)
