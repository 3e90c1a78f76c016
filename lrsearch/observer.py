"""Who may watch a sweep: the tracker and the screen implement this, the sweep calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lrsearch.record import DenseRecord, Report, TrialRecord


@dataclass(frozen=True)
class SweepInfo:
    """What a watcher is told first.

    Attributes:
        name: the sweep's name.
        folder: where the sweep keeps its study, trials, caches and front.
        trials: how many trials the sweep will hold when it is done.
        finished: how many of them were finished by earlier runs of the sweep.
        workers: how many trials run side by side.
        objectives: metric name -> "max" or "min", in the order of the space file.
        space: the resolved space file, as plain data.
    """

    name: str
    folder: Path
    trials: int
    finished: int
    workers: int
    objectives: dict[str, str]
    space: dict[str, Any]


class SweepObserver(Protocol):
    """Told of everything that happens in a sweep, in order, from the driver's main thread.

    After a resume an observer may be told again of trials that it already knows: every call is idempotent.
    """

    def sweep_started(self, info: SweepInfo) -> None:
        """First of all."""

    def dense_reported(self, report: Report) -> None:
        """An epoch of the dense training."""

    def dense_finished(self, dense: DenseRecord) -> None:
        """The dense network is trained or loaded, and measured."""

    def trial_started(self, number: int, method: str, hyperparameters: dict[str, Any]) -> None:
        """A trial was given to a worker, for the first time or again."""

    def trial_reported(self, number: int, report: Report) -> None:
        """A stage or an epoch of a trial ended."""

    def trial_finished(self, record: TrialRecord, epochs: Sequence[dict[str, float]], folder: Path) -> None:
        """A trial ended in ``record.state``.

        ``epochs`` is its whole history (keys ``epoch``, ``loss``, ``accuracy``, ``lr``, ``seconds``); ``folder``
        holds ``recipe.json`` and ``weights.safetensors`` when it is complete.
        """

    def front_changed(self, front: Sequence[TrialRecord], hypervolume: float) -> None:
        """The members of the front when a trial has joined it, and after they were tested."""

    def sweep_stopped(self, outcome: str) -> None:
        """Last of all: ``"finished"`` or ``"interrupted"``."""
