"""Who goes on at a rung: the trials that few others there are better than in every objective."""

from __future__ import annotations

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
    """

    goes_on: bool
    better: int
    reached: int

    def __str__(self) -> str:
        return f"{self.better} of the {self.reached} trials there rank better"


class Rungs:
    """Successive halving for many objectives, one trial at a time (as ASHA, Li et al. 2020, with ranks for losses).

    Only accuracy has a fidelity, so a trial is compared with those that trained as long and will train as long. It
    goes on if its non-domination rank is 0, or if fewer than one in ``factor`` have a better rank. A verdict depends
    on nothing but the trials that reached the rung before: remembered in the study, they are all the state there is.
    """

    def __init__(self, config: RungsConfig | None, objectives: Mapping[str, str]) -> None:
        """Start with empty rungs; None means that there are none."""
        self._config = config
        self._objectives = objectives
        self._ranks: dict[tuple[int, int], Ranks] = {}

    def epochs(self, total: int) -> Sequence[int]:
        """The rungs of a training of ``total`` epochs."""
        return self._config.epochs(total) if self._config else ()

    def judge(self, total: int, rung: int, metrics: Mapping[str, float]) -> Verdict:
        """Take a trial into a rung, with its metrics there."""
        assert self._config is not None  # noqa: S101 - without a configuration there is no rung to judge at
        ranks = self._ranks.setdefault((total, rung), Ranks(len(self._objectives)))
        signs = {"max": 1.0, "min": -1.0}
        rank = ranks.add([signs[way] * metrics[name] for name, way in self._objectives.items()])
        better, reached = ranks.above(rank), len(ranks)
        return Verdict(better * self._config.factor < reached, better, reached)
