"""Who goes on at a rung: the trials that few others there are better than in every objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrsearch.ranks import Ranks

if TYPE_CHECKING:
    from lrsearch.search_config import RungsConfig  # imports PyTorch, which reading results does not need


@dataclass(frozen=True)
class Verdict:
    """What a rung said of a trial.

    Attributes:
        goes_on: whether the trial is worth more epochs.
        better: how many of the trials that reached the rung before had a better rank.
        reached: how many reached it by then, this one included.
        hopeless: whether all that is known of its accuracy there speaks against its ever being feasible.
    """

    goes_on: bool
    better: int
    reached: int
    hopeless: bool = False

    def __str__(self) -> str:
        if self.hopeless:
            return "one of its method as accurate there ended infeasible, and none as inaccurate ended feasible"
        return f"{self.better} of the {self.reached} trials there rank better"


@dataclass
class _Fates:
    """What became of the trials of a method that trained to their end, by their accuracy at a rung."""

    best_infeasible: float = -math.inf
    least_feasible: float = math.inf

    def add(self, accuracy: float, feasible: bool) -> None:
        if feasible:
            self.least_feasible = min(self.least_feasible, accuracy)
        else:
            self.best_infeasible = max(self.best_infeasible, accuracy)

    def hopeless(self, accuracy: float) -> bool:
        return accuracy <= self.best_infeasible and accuracy < self.least_feasible


class Rungs:
    """Successive halving for many objectives, one trial at a time (as ASHA, Li et al. 2020, with ranks for losses).

    Only accuracy has a fidelity, so a trial is compared with those that trained as long and will train as long. It
    goes on if its non-domination rank is 0, or if fewer than one in ``factor`` have a better rank. Trials that will end
    infeasible come after all that will not (as in Deb et al. 2002), whatever their rank: they are told by their
    accuracy, from which others of their method went the same way; methods learn at different paces. A verdict depends
    on nothing but the trials that reached the rung before and how those ended: remembered in the study, they are all
    the state there is.
    """

    def __init__(self, config: RungsConfig | None, objectives: Mapping[str, str]) -> None:
        """Start with empty rungs; None means that there are none."""
        self._config = config
        self._objectives = objectives
        self._ranks: dict[tuple[int, int], Ranks] = {}
        self._fates: dict[tuple[str, int, int], _Fates] = {}
        self._accuracies: dict[int, dict[tuple[str, int, int], float]] = {}

    def epochs(self, total: int) -> Sequence[int]:
        """The rungs of a training of ``total`` epochs."""
        return self._config.epochs(total) if self._config else ()

    def judge(self, number: int, method: str, total: int, rung: int, metrics: Mapping[str, float]) -> Verdict:
        """Take a trial into a rung, with its objectives and its accuracy there."""
        assert self._config is not None  # noqa: S101 - without a configuration there is no rung to judge at
        accuracy = self._accuracies.setdefault(number, {})[method, total, rung] = metrics["accuracy"]
        ranks = self._ranks.setdefault((total, rung), Ranks(len(self._objectives)))
        signs = {"max": 1.0, "min": -1.0}
        rank = ranks.add([signs[way] * metrics[name] for name, way in self._objectives.items()])
        better, reached = ranks.above(rank), len(ranks)
        fates = self._fates.get((method, total, rung))
        hopeless = fates is not None and fates.hopeless(accuracy)
        return Verdict(better * self._config.factor < reached and not hopeless, better, reached, hopeless)

    def ended(self, number: int, feasible: bool) -> None:
        """Remember how a trial ended that trained to its end, with those that stood as it did at its rungs."""
        for place, accuracy in self._accuracies.pop(number, {}).items():
            self._fates.setdefault(place, _Fates()).add(accuracy, feasible)
