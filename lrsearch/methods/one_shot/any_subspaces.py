"""ALDS and what differs from it in the foldings alone: any number of subspaces, any error, the largest made small.

Source: ALDS, NeurIPS 2021, Algorithm 1 and Theorem 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from lrsearch.allocate import Candidates
from lrsearch.methods import base
from lrsearch.methods.one_shot import errors
from lrsearch.methods.one_shot.cap import Caps
from lrsearch.methods.one_shot.spectral import BudgetHyperparameters, Spectral, drawn


class AnySubspacesHyperparameters(BudgetHyperparameters):
    """What ``alds`` and ``alds_plus`` can be told."""

    max_subspaces: Annotated[int, Field(ge=1)] | None = None
    """The largest number k of subspaces in a layer; None allows every divisor of its input channels."""
    error: Literal["proxy", "theorem1", "sum_bound", "energy"] = "proxy"
    """The relative error of a layer: the authors' lower bound of the operator norm, two upper bounds of it, or the
    Frobenius norm."""
    solver: Literal["max", "alternating"] = "max"
    """``max`` finds the smallest possible largest error; ``alternating`` is the paper's Algorithm 1."""
    n_seeds: Annotated[int, Field(ge=1)] = 15
    """Random starts of ``alternating``."""


class AnySubspaces(Spectral):
    """The largest error of a layer as small as possible, over every k and rank."""

    Hyperparameters: ClassVar[type[base.Hyperparameters]] = AnySubspacesHyperparameters

    def subspaces(self, useful: Sequence[int], hyperparameters: Any) -> Sequence[int]:
        """All up to the largest allowed."""
        limit = hyperparameters.max_subspaces
        return [k for k in useful if limit is None or k <= limit]

    def measure(self, hyperparameters: Any) -> errors.ErrorMeasure:
        """The error asked for."""
        measure: errors.ErrorMeasure = getattr(errors, hyperparameters.error)
        return measure

    def spread(
        self, caps: Caps, layers: Sequence[Candidates], hyperparameters: Any, generator: torch.Generator
    ) -> list[int]:
        """By the solver asked for."""
        return caps.allocate(layers, hyperparameters.solver, n_seeds=hyperparameters.n_seeds, rng=drawn(generator))
