"""The observer that keeps MLflow up to date with a sweep, without ever making it wait."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from lrsearch.errors import LrsearchError
from lrsearch.observer import SweepInfo
from lrsearch.record import DenseRecord, Report, TrialRecord
from lrsearch.tracking.store import artifact_location, connect, first_line, ui_address
from lrsearch.tracking.sweep_mirror import SweepMirror

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
_PACE = 1.0
"""Seconds between two rounds of writing, in which reports pile up to be sent together."""
_PATIENCE = 4
"""Failed rounds after which a warning says so, and after which a sweep that ended no longer waits."""
_LONGEST_WAIT = 60.0
_FAREWELL = 30.0
"""Seconds after its end for which a sweep waits for an MLflow that does not answer."""


class Tracker:
    """A ``SweepObserver`` that keeps one MLflow run per sweep and one below it per trial.

    The methods only take note and return at once; one thread writes. What the sweep tells is its own record,
    so that whatever MLflow missed (it was away, the driver was killed) is filled in when the sweep is
    resumed, and what MLflow holds is not written again.
    """

    def __init__(self, uri: str | None, storage: Path) -> None:
        """Open the store, and create it where it does not exist.

        Args:
            uri: an MLflow tracking URI, or None for the file ``mlflow.db`` in the storage folder.
            storage: the folder of all sweeps; artifacts go to its ``mlartifacts`` unless a server keeps them.

        Raises:
            LrsearchError: the store is damaged, cannot be written or does not answer.
        """
        self._client = connect(uri, storage)
        self._place = uri, storage
        self._artifacts = partial(artifact_location, uri, storage)
        self._server = ui_address(uri)
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._mirror: SweepMirror | None = None
        self._thread: Thread | None = None
        self._stopping = Event()

    def sweep_started(self, info: SweepInfo) -> None:
        """Start writing; the runs that earlier drivers left are looked up first."""
        self._mirror = SweepMirror(info, self._artifacts(info.name), self._server)
        self._stopping.clear()
        self._thread = Thread(target=self._work, args=(self._mirror,), name="lrsearch-mlflow", daemon=True)
        self._thread.start()

    def dense_reported(self, report: Report) -> None:
        """An epoch of the dense training."""
        self._tell(SweepMirror.dense_reported, report)

    def dense_finished(self, dense: DenseRecord) -> None:
        """The dense network's figures."""
        self._tell(SweepMirror.dense_finished, dense)

    def trial_started(self, number: int, method: str, hyperparameters: dict[str, Any]) -> None:
        """A trial's run is created, or found again."""
        self._tell(SweepMirror.trial_started, number, method, hyperparameters)

    def trial_reported(self, number: int, report: Report) -> None:
        """A stage's or an epoch's metrics."""
        self._tell(SweepMirror.trial_reported, number, report)

    def trial_finished(self, record: TrialRecord, epochs: Sequence[dict[str, float]], folder: Path) -> None:
        """A trial's run is completed with whatever it lacks."""
        self._tell(SweepMirror.trial_finished, copy(record), list(epochs), folder)

    def front_changed(self, front: Sequence[TrialRecord], hypervolume: float) -> None:
        """The front's tags, its course, and from time to time its pictures."""
        self._tell(SweepMirror.front_changed, [copy(record) for record in front], hypervolume)

    def sweep_stopped(self, outcome: str) -> None:
        """Write what is left and wait for it; give up with a warning where MLflow does not answer.

        The networks of a finished sweep's front become models of their runs.
        """
        if self._thread is None or self._mirror is None:
            return
        self._tell(SweepMirror.stopped, outcome)
        self._stopping.set()
        self._thread.join()
        if outcome == "finished" and not self._mirror.unsent_runs():
            self._log_front(self._mirror)
        self._thread = self._mirror = None

    def _log_front(self, mirror: SweepMirror) -> None:
        from lrsearch.tracking.models import log_models

        for run_id, network in mirror.front_networks().items():
            try:
                log_models(*self._place, {run_id: network})
            except LrsearchError as error:
                _log.warning("no model of a network of the front in MLflow: %s", error)

    def _tell(self, event: Callable[..., None], *arguments: Any) -> None:
        if self._mirror is not None:
            self._calls.put(partial(event, self._mirror, *arguments))

    def _work(self, mirror: SweepMirror) -> None:
        """The thread: take note of what was told, write, rest."""
        failures = 0
        due: float | None = None
        while not self._stopping.is_set():
            self._take_calls(due)
            self._stopping.wait(min(_LONGEST_WAIT, _PACE * 2**failures))
            self._take_calls(time.monotonic())
            problem = _send(mirror, self._client)
            failures = failures + 1 if problem else 0
            due = time.monotonic() if problem else mirror.next_drawing()
            if failures == _PATIENCE:
                _log.warning(
                    "MLflow does not take the sweep's runs (%s): the sweep goes on and will try again",
                    problem,
                )
        self._take_calls(time.monotonic())
        self._say_farewell(mirror)

    def _take_calls(self, until: float | None) -> None:
        """Pass on what was told, waiting for it until a time on the monotonic clock, or for ever."""
        try:
            call = self._calls.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            while True:
                _pass_on(call)
                call = self._calls.get_nowait()
        except queue.Empty:
            return

    def _say_farewell(self, mirror: SweepMirror) -> None:
        deadline = time.monotonic() + _FAREWELL
        for attempt in range(_PATIENCE):
            problem = _send(mirror, self._client)
            if not problem:
                return
            if attempt == _PATIENCE - 1 or time.monotonic() > deadline:
                break
            time.sleep(_PACE * 2**attempt)
        _log.warning(
            "MLflow lacks entries of %d runs (%s): resuming the sweep will fill them in",
            *(mirror.unsent_runs(), problem),
        )


def _send(mirror: SweepMirror, client: MlflowClient) -> str:
    """Write what MLflow lacks; the text of what went wrong, or nothing. No fault of MLflow ends a sweep."""
    try:
        mirror.send(client)
    except Exception as error:
        _log.debug("writing to MLflow failed", exc_info=True)
        return first_line(error)
    return ""


def _pass_on(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception as error:
        _log.warning("an event of the sweep cannot be shown in MLflow: %s", first_line(error))
        _log.debug("the event was %r", call, exc_info=True)
