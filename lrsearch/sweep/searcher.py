"""Ray Tune's view of the session: which trial next, whether it goes on, that it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from lrsearch.errors import StorageError
from lrsearch.record import Report
from lrsearch.sweep.lives import Lives
from lrsearch.sweep.session import SweepSession


class StudySearcher(Searcher):
    """Hands out the study's trials, orphans of an earlier driver first, and tells the study of their ends.

    It has no state of its own beside Tune's names for running trials: the study has it all.
    """

    def __init__(self, session: SweepSession, slots: Callable[[], int], lives: Lives) -> None:
        """Run as many trials side by side as there are ``slots`` at the time: nodes come and go."""
        super().__init__(metric=None, mode=None)
        self._session, self._slots, self._lives = session, slots, lives
        self._fault: Exception | None = None
        self._numbers: dict[str, int] = {}

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Nothing to take over: objectives come from the space."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | Any:
        """The config of the next trial, None while there may be one later, or ``Searcher.FINISHED``."""
        self.check()
        if self._numbers and len(self._numbers) >= self._slots():  # one waits where Tune may be interrupted
            return None
        spec = self._session.next_trial()
        if spec is None:
            return None if self._numbers else Searcher.FINISHED  # one that loses its worker has to begin again
        self._numbers[trial_id] = spec.number
        return {"spec": spec, "folder": str(self._session.store.trial(spec.number))}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended, was interrupted, or lost its worker."""
        number = self._numbers.pop(trial_id)
        try:
            if error and not self._lives.spent(number):
                self._session.worker_lost(number)
            else:
                self._session.trial_ended(number, worker_died=error)
        except Exception as fault:  # Tune would take it for the trial's
            self._fault = self._fault or fault

    def check(self) -> None:
        """Raise what went wrong when a trial ended; the trial stays unfinished, for the next driver."""
        if self._fault is not None:
            raise self._fault

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see the class."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see the class."""


class RungScheduler(FIFOScheduler):
    """Asks the session of every report whether the trial ends with it; the session keeps what there is to remember."""

    def __init__(self, session: SweepSession, lives: Lives) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._session, self._lives = session, lives

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Let a trial go on or stop it."""
        number = trial.config["spec"].number
        stops = any(self._session.stops(number, Report(**report)) for report in result["reports"])
        return str(self.STOP if stops else self.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial lost its worker; Tune asks the searcher what to do next."""
        self._lives.worker_lost(trial.config["spec"].number, tune_controller._actor_manager.error)


class ReportForwarder(Callback):
    """Passes what workers report on to the session."""

    def __init__(self, session: SweepSession) -> None:
        self._session = session

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker took a trial up, for the first time or after another worker died."""
        self._session.trial_started(trial.config["spec"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A worker told how its trial is getting on.

        Raises:
            StorageError: the worker could not use it; the sweep is to be resumed when it can be used.
        """
        for report in result.get("reports", []):
            self._session.trial_reported(trial.config["spec"].number, Report(**report))
        if result.get("fault"):
            raise StorageError(result["fault"])
