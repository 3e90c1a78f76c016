"""Who goes on at a rung: the trials that few others there are better than, and those that may yet make up for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lrsearch.ranks import Ranks, dominates
from lrsearch.record import TRAINED
from lrsearch.sweep.outlook import Outlook

if TYPE_CHECKING:
    from lrsearch.search_config import RungsConfig  # imports PyTorch, which reading results does not need

_Place: TypeAlias = tuple[int, int]
"""The epochs that a training is to have, and those of a rung of it."""
_SIGNS = {"max": 1.0, "min": -1.0}


@dataclass(frozen=True)
class Verdict:
    """What a rung said of a trial.

    Attributes:
        goes_on: whether the trial is worth more epochs.
        better: how many of the trials that reached the rung before had a better rank.
        reached: how many reached it by then, this one included.
        hopeless: whether its accuracy is not expected to come up to its bound.
    """

    goes_on: bool
    better: int
    reached: int
    hopeless: bool = False

    def __str__(self) -> str:
        if self.hopeless:
            return "its accuracy is not expected to come up to its bound"
        return (
            f"{self.better} of the {self.reached} trials there rank better, and one that ended beats what it may become"
        )


class Rungs:
    """Successive halving for many objectives, one trial at a time (as ASHA, Li et al. 2020, with ranks for losses).

    Only accuracy has a fidelity, so a trial is compared with those that trained as long and will train as long. It
    goes on if its non-domination rank is 0, or if fewer than one in ``factor`` have a better rank. Where accuracies at
    a rung say little of those in the end, that is not enough to stop: it also goes on unless a trial that trained to
    its end dominates what it may hope to become. Trials that may not hope to be feasible come after all that may (as in
    Deb et al. 2002), whatever their rank.

    A verdict depends on nothing but the trials that reached the rung before and how those ended: remembered in the
    study, they are all the state there is.
    """

    def __init__(
        self, config: RungsConfig | None, objectives: Mapping[str, str], lowest_accuracy: float = -math.inf
    ) -> None:
        """Start with empty rungs.

        Args:
            config: None means that there are none.
            objectives: metric name -> ``"max"`` or ``"min"``.
            lowest_accuracy: below which a trial is infeasible.
        """
        self._config, self._objectives, self._lowest_accuracy = config, objectives, lowest_accuracy
        self._ranks: dict[_Place, Ranks] = {}
        self._outlooks: dict[_Place, Outlook] = {}
        self._reached: dict[int, dict[_Place, Mapping[str, float]]] = {}
        """Trial -> its metrics at its rungs."""
        self._trained = np.empty((0, len(objectives)))
        """Of the trials that trained to their end the objectives that no other dominates, larger being better."""

    def epochs(self, total: int) -> Sequence[int]:
        """The rungs of a training of ``total`` epochs."""
        return self._config.epochs(total) if self._config else ()

    def judge(self, number: int, total: int, rung: int, metrics: Mapping[str, float]) -> Verdict:
        """Take a trial into a rung, with its objectives and its accuracy there."""
        assert self._config is not None  # noqa: S101 - without a configuration there is no rung to judge at
        place = total, rung
        self._reached.setdefault(number, {})[place] = metrics
        ranks = self._ranks.setdefault(place, Ranks(len(self._objectives)))
        rank = ranks.add(self._point(metrics))
        better, reached = ranks.above(rank), len(ranks)
        outlook, stand = self._outlooks.setdefault(place, Outlook()), self._stand(metrics)
        if not outlook.may_reach(self._lowest_accuracy, stand):
            return Verdict(False, better, reached, hopeless=True)
        goes_on = better * self._config.factor < reached or not self._beaten(metrics, outlook.hoped(stand))
        return Verdict(goes_on, better, reached)

    def ended(self, number: int, metrics: Mapping[str, float]) -> None:
        """Learn from a trial that trained to its end, with its objectives and its accuracy there."""
        for place, then in self._reached.pop(number, {}).items():
            self._outlooks[place].learn(number, self._stand(then), metrics["accuracy"])
        point = np.array([self._point(metrics)])
        if not dominates(self._trained, point)[0]:
            self._trained = np.concatenate([self._trained[~dominates(point, self._trained)], point])

    def _beaten(self, metrics: Mapping[str, float], accuracy: float) -> bool:
        """Whether a trial that trained to its end dominates one that ends with this accuracy."""
        gain = accuracy - metrics["accuracy"]
        gains = {name: _SIGNS[way] * gain for name, way in self._objectives.items() if name in TRAINED}
        hoped = {name: metrics[name] + gains.get(name, 0.0) for name in self._objectives}
        return bool(dominates(self._trained, np.array([self._point(hoped)]))[0])

    def _point(self, metrics: Mapping[str, float]) -> list[float]:
        """The objectives, larger being better."""
        return [_SIGNS[way] * metrics[name] for name, way in self._objectives.items()]

    def _stand(self, metrics: Mapping[str, float]) -> list[float]:
        """What the end of a training is told by: its accuracy so far, and what training does not change."""
        return [metrics["accuracy"], *(metrics[name] for name in self._objectives if name not in TRAINED)]
