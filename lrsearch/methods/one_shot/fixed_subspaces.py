"""The ablations of ALDS in which every layer has the same number of subspaces.

Source: ALDS supplement C.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from lrsearch.methods import base
from lrsearch.methods.one_shot.spectral import BudgetHyperparameters, Spectral


class FixedSubspacesHyperparameters(BudgetHyperparameters):
    """What ``alds_error`` and ``alds_simple`` can be told."""

    subspaces: Annotated[int, Field(ge=1)] = 3
    """The number k of subspaces in every layer; where k slices are not equal, the next smaller number that is."""


class FixedSubspaces(Spectral):
    """k subspaces in every layer."""

    Hyperparameters: ClassVar[type[base.Hyperparameters]] = FixedSubspacesHyperparameters
    sliced = True

    def subspaces(self, useful: Sequence[int], hyperparameters: Any) -> Sequence[int]:
        """The largest that is not above k; there is one, since 1 is useful wherever another is."""
        return [max(k for k in useful if k <= hyperparameters.subspaces)]
