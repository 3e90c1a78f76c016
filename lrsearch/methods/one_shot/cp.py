"""CP decompositions as further candidates beside those of a layer that come from singular values.

There is none that holds those of all ranks: each is fitted by itself, so that only some ranks are candidates.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrsearch.factorize import LayerShape, layer_cost
from lrsearch.factorize.cp import cp_factors, modes_of, multiply_out
from lrsearch.factorize.ranks import of_rank, rank_cap
from lrsearch.methods.one_shot.candidates import Family, is_smaller, sizes, spread_ranks
from lrsearch.methods.one_shot.timed import DENSE
from lrsearch.methods.one_shot.tucker2 import TuckerError
from lrsearch.recipe import Factorization


def cp_errors(weight: Tensor, shape: LayerShape, error: TuckerError) -> Tensor:
    """The relative error of each candidate, from one start of its fit.

    Args:
        weight: (S, C / groups, height, width).
        shape: of the layer.
        error: ``energy``, in the Frobenius norm; ``proxy``, in the operator norm of the S x C k^2 matrix, of the worst
            group, which for one subspace of an SVD is the proxy too.

    Raises:
        ArithmeticError: a fit diverges.
    """
    groups = weight.detach().cpu().to(torch.float64).reshape(shape.groups, -1, *weight.shape[1:])
    whole = _norms(groups, error)
    errors = []
    for candidate in _members(shape):
        fitted = [multiply_out(cp_factors(modes_of(group, 0), candidate.ranks[0], starts=[0])) for group in groups]
        left = groups.movedim(2, -1).flatten(2, 3) - torch.stack(fitted)
        errors.append(_norms(left, error) / whole if whole > 0 else whole)
    return torch.stack(errors) if errors else groups.new_zeros(0)


def cp_family(shape: LayerShape, errors: Tensor) -> Family:
    """The candidates, given what ``cp_errors`` returns."""
    members = _members(shape)
    costs = np.array([sizes(layer_cost(shape, member)) for member in members], dtype=np.int64).reshape(-1, 2)
    return Family(0, errors.numpy(), costs, members.__getitem__)


def _members(shape: LayerShape) -> list[Factorization]:
    """Ranks that make the layer smaller, evenly apart in ratio."""
    found = [of_rank(shape, "cp", index + 1) for index in spread_ranks(rank_cap(shape, "cp"))]
    return [member for member in found if is_smaller(layer_cost(shape, member), layer_cost(shape, DENSE))]


def _norms(groups: Tensor, error: TuckerError) -> Tensor:
    norm: Tensor = groups.norm() if error == "energy" else torch.linalg.matrix_norm(groups.flatten(2), 2).max()
    return norm
