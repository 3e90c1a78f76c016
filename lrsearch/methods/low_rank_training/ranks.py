"""Which ranks ``dlrt`` chooses: by a tau that is given, or by the smallest that a budget allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lrsearch.factorize import LayerShape, layer_cost
from lrsearch.methods.low_rank_training.hyperparameters import TAU, DlrtHyperparameters
from lrsearch.methods.one_shot.candidates import Family, LayerTable, sizes, smaller_ranks, svd
from lrsearch.methods.one_shot.cap import Caps
from lrsearch.methods.one_shot.timed import DENSE
from lrsearch.recipe import Factorization
from lrsearch.training.dlrt import ChooseRanks, PermittedRanks, Spectrum, rank_within, tail_norms


def permitted_ranks(shape: LayerShape, hyperparameters: DlrtHyperparameters) -> PermittedRanks | None:
    """The ranks that a layer may have; None where none makes it smaller."""
    largest = len(smaller_ranks(layer_cost(shape, svd(0, 1, 1)), layer_cost(shape, DENSE)))
    if not largest:
        return None
    high = min(largest, hyperparameters.r_max or largest)
    return PermittedRanks.between(hyperparameters.r_min, high, hyperparameters.tile)


@dataclass(frozen=True)
class ByTau:
    """The same relative loss in every layer, each by itself."""

    permitted: Mapping[str, PermittedRanks]
    hyperparameters: DlrtHyperparameters

    def tau(self, progress: float) -> float:
        """Tau at a moment of the adaptive epochs, from 0 to 1."""
        end = self.hyperparameters.tau or TAU
        start = self.hyperparameters.tau_start or end
        return start + progress * (end - start)

    def at(self, progress: float) -> ChooseRanks:
        """The choice at a moment of the adaptive epochs."""
        tau = self.tau(progress)
        return lambda spectra: {
            name: self.permitted[name].at_least(rank_within(spectrum, tau)) for name, spectrum in spectra.items()
        }

    def factorizations(self, spectra: Mapping[str, Spectrum], progress: float) -> dict[str, Factorization]:
        """The choice as factorizations."""
        return {name: svd(0, 1, rank) for name, rank in self.at(progress)(spectra).items()}


@dataclass(frozen=True)
class ByBudget:
    """The smallest largest relative loss that the caps allow, found by bisection, and what fits beside.

    Layers may also stay dense; layers without a spectrum do.
    """

    shapes: Mapping[str, LayerShape]
    permitted: Mapping[str, PermittedRanks]
    caps: Caps
    _losses: list[float] = field(default_factory=list)

    def tau(self, progress: float) -> float:
        """The largest relative loss of the last choice."""
        return self._losses[-1]

    def at(self, progress: float) -> ChooseRanks:
        """The choice at any moment; a layer that the budget would leave dense has its largest rank meanwhile."""

        def choose(spectra: Mapping[str, Spectrum]) -> dict[str, int]:
            chosen = self.factorizations(spectra, progress)
            return {name: (chosen[name].ranks or self.permitted[name].ranks[-1:])[0] for name in spectra}

        return choose

    def factorizations(self, spectra: Mapping[str, Spectrum], progress: float) -> dict[str, Factorization]:
        """The choice of every layer that has a spectrum.

        Raises:
            BudgetUnreachableError: with the smallest fractions of the network that can be reached.
        """
        tables = {
            name: LayerTable(name, shape, self._families(name, shape, spectra), self.caps)
            for name, shape in self.shapes.items()
        }
        chosen = self.caps.allocate([table.candidates for table in tables.values()], "max")
        found = {name: table.factorization(index) for (name, table), index in zip(tables.items(), chosen, strict=True)}
        errors = [table.candidates.errors[index] for table, index in zip(tables.values(), chosen, strict=True)]
        self._losses[:] = [float(max(errors, default=0.0))]
        return {name: found[name] for name in spectra}

    def _families(self, name: str, shape: LayerShape, spectra: Mapping[str, Spectrum]) -> list[Family]:
        if name not in spectra:
            return []
        ranks = self.permitted[name].ranks
        errors = relative_losses(spectra[name], ranks[-1])[list(ranks)]
        first = sizes(layer_cost(shape, svd(0, 1, 1)))
        return [Family(1, errors, np.outer(ranks, first), lambda index: svd(0, 1, ranks[index]))]


def relative_losses(spectrum: Spectrum, highest: int) -> Spectrum:
    """Relative Frobenius norm of what truncation to rank 0, 1, ..., ``highest`` loses.

    Of singular values beyond those at hand nothing is known but that training may need them: they count as
    rounding errors, so that more rank is still worth more than less.
    """
    rounding = np.finfo(np.float64).eps * max(float(np.linalg.norm(spectrum)), np.finfo(np.float64).tiny)
    padded = np.append(spectrum, np.full(max(0, highest + 1 - len(spectrum)), rounding))
    tails = tail_norms(padded)
    losses: Spectrum = tails[: highest + 1] / tails[0]
    return losses
