"""ALDS and what differs from it in the candidates alone: any number of subspaces, any error, any rule.

Source: ALDS, NeurIPS 2021, Algorithm 1 and Theorem 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from lrsearch.allocate import Candidates, Rule
from lrsearch.methods import base
from lrsearch.methods.one_shot import errors
from lrsearch.methods.one_shot.cap import Caps
from lrsearch.methods.one_shot.spectral import BudgetHyperparameters, Spectral, drawn


class AnySubspacesHyperparameters(BudgetHyperparameters):
    """What ``alds`` and ``alds_plus`` can be told."""

    error: Literal["proxy", "theorem1", "sum_bound", "energy"] = "proxy"
    """The relative error of a layer: the authors' lower bound of the operator norm, two upper bounds of it, or the
    Frobenius norm."""
    rule: Literal["max", "alternating", "sum", "constant", "energy"] = "max"
    """``max`` finds the smallest possible largest error; ``alternating`` is the paper's Algorithm 1 for it; ``sum``
    minimises the sum of the errors; ``constant`` keeps the same fraction of every layer; ``energy`` the same fraction
    of every layer's energy, whatever ``error`` says. A search leaves ``max`` of ``proxy`` as it is unless told
    otherwise: it is the paper's pair."""
    max_subspaces: Annotated[int, Field(ge=1)] | None = None
    """The largest number k of subspaces in a layer; None allows every divisor of its input channels."""
    n_seeds: Annotated[int, Field(ge=1)] = 15
    """Random starts of ``alternating``."""

    @property
    def measured(self) -> str:
        """The error that the rule weighs."""
        return "energy" if self.rule == "energy" else self.error


class AnySubspaces(Spectral):
    """Every k and rank, by any rule."""

    Hyperparameters: ClassVar[type[base.Hyperparameters]] = AnySubspacesHyperparameters
    sliced = True

    def subspaces(self, useful: Sequence[int], hyperparameters: Any) -> Sequence[int]:
        """All up to the largest allowed."""
        limit = hyperparameters.max_subspaces
        return [k for k in useful if limit is None or k <= limit]

    def measure(self, hyperparameters: Any) -> errors.ErrorMeasure:
        """The error asked for."""
        measure: errors.ErrorMeasure = getattr(errors, hyperparameters.measured)
        return measure

    def spread(
        self, caps: Caps, layers: Sequence[Candidates], hyperparameters: Any, generator: torch.Generator
    ) -> list[int]:
        """By the rule asked for; equal energy is the smallest possible largest loss of it."""
        rule: Rule = "max" if hyperparameters.rule == "energy" else hyperparameters.rule
        return caps.allocate(layers, rule, n_seeds=hyperparameters.n_seeds, rng=drawn(generator))
