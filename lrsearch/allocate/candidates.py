"""What an allocation chooses from, and what a solver of it can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Candidates:
    """The ways to realise one layer, as arrays of one entry each.

    Attributes:
        errors: (n,); 0 for the dense layer, which is always among the candidates.
        costs: (n,) in the unit of the cap, or (n, caps), one column for each cap; the dense layer is the costliest.
        groups: (n,); number of subspaces, which ``alternating`` holds fixed while it chooses ranks; 0 for a
            candidate that goes with any, such as the dense layer.
    """

    errors: Floats
    costs: Ints
    groups: Ints

    def with_groups(self, groups: int) -> Bools:
        """Which candidates have this number of subspaces or go with any."""
        mask: Bools = (self.groups == groups) | (self.groups == 0)
        return mask


class Solver(Protocol):
    """The layers and what they may cost together; choices are one candidate's index for each layer."""

    layers: Sequence[Candidates]

    def smallest(self) -> tuple[float, ...]:
        """The smallest reachable value of each cap, the others left aside."""

    def cheapest(self) -> list[int] | None:
        """A choice that keeps the caps, None where there is none."""

    def minimise_largest(self, keep: Sequence[Bools] | None = None) -> list[int] | None:
        """The smallest largest error, among the candidates to ``keep``; None where they do not keep the caps."""

    def minimise_sum(self) -> list[int]:
        """The smallest sum of errors."""

    def within(self, layer: int, candidate: int) -> int:
        """The candidate of the smallest error that costs no more than a given one."""

    def fill(self, choice: Sequence[int]) -> list[int]:
        """Take further steps along the fronts until none fits: those that remove most error for their cost first."""

    def constant(self) -> list[int]:
        """The same fraction of every layer's dense cost; what is left goes to the layers that keep least."""
