"""The Optuna study of a sweep: the one durable truth about its trials."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from lrsearch.errors import LrsearchError
from lrsearch.record import DIRECTIONS, State, TrialRecord
from lrsearch.sweep.sampler import enqueue_starting_points, make_sampler, suggest
from lrsearch.sweep.store import SweepStore

if TYPE_CHECKING:
    from lrsearch.space import Space  # imports PyTorch, which reading results does not need

optuna.logging.set_verbosity(optuna.logging.WARNING)

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
}


class SweepStudy:
    """What was tried, what came of it, and what to try next."""

    def __init__(self, store: SweepStore, space: Space) -> None:
        """Open the study of a sweep, creating it with its starting points if there is none.

        Only the holder of the sweep's lock may do this: it removes what a killed driver left half-written.

        Raises:
            LrsearchError: the study file is damaged.
        """
        _discard_torn_line(store.journal)
        store.journal.with_name(store.journal.name + ".lock").unlink(missing_ok=True)
        self._space = space
        storage = _storage(store.journal)
        directions = [
            StudyDirection.MAXIMIZE if d == "max" else StudyDirection.MINIMIZE for d in space.objectives.values()
        ]
        self._study = optuna.create_study(
            storage=storage, study_name=store.name, directions=directions, load_if_exists=True
        )
        asked = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = make_sampler(space.search.sampler, space.search.seed, asked)
        enqueue_starting_points(self._study, space)

    def ask(self) -> tuple[int, str, dict[str, Any]]:
        """Start a new trial: its number, method and hyperparameters."""
        trial = self._study.ask()
        method, hyperparameters = suggest(trial, self._space)
        trial.set_user_attr("method", method)
        trial.set_user_attr("hyperparameters", hyperparameters)
        return trial.number, method, hyperparameters

    def unfinished(self) -> list[tuple[int, str, dict[str, Any]]]:
        """Trials that an earlier driver started and nobody finished: to be continued under the same number."""
        orphans = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "hyperparameters" not in frozen.user_attrs:
                method, hyperparameters = suggest(self._trial(frozen), self._space)
                self._trial(frozen).set_user_attr("method", method)
                self._trial(frozen).set_user_attr("hyperparameters", hyperparameters)
            else:
                method, hyperparameters = frozen.user_attrs["method"], frozen.user_attrs["hyperparameters"]
            orphans.append((frozen.number, method, hyperparameters))
        return orphans

    def tell(self, number: int, result: Mapping[str, Any]) -> TrialRecord:
        """Record how a trial ended, once; ``result`` is what the trial left in ``result.json``."""
        frozen = self._study.get_trials(deepcopy=False)[number]
        if frozen.state == TrialState.RUNNING:
            trial = self._trial(frozen)
            trial.set_user_attr("metrics", result["metrics"])
            trial.set_user_attr("reason", result["reason"])
            if result["state"] == "complete":
                self._set_constraints(trial, result["metrics"])
                values = [result["metrics"][metric] for metric in self._space.objectives]
                self._study.tell(number, values, state=TrialState.COMPLETE)
            else:
                self._study.tell(number, state=TrialState.FAIL)
        return _record(self._study.get_trials(deepcopy=False)[number])

    def finished(self) -> list[TrialRecord]:
        """Every trial that has ended, in order of number."""
        return [record for record in _records(self._study.get_trials(deepcopy=False)) if record.state != "running"]

    def _set_constraints(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a driver killed between this and tell has set them already
            for metric, bound in self._space.constraints.items():
                excess = metrics[metric] - bound
                trial.set_constraint(metric, excess if DIRECTIONS[metric] == "min" else -excess)

    def _trial(self, frozen: FrozenTrial) -> Trial:
        return Trial(self._study, frozen._trial_id)


def read_records(store: SweepStore) -> list[TrialRecord]:
    """Every trial of a sweep that was started; reads only, so it may run beside the driver.

    Raises:
        LrsearchError: the study file is missing or damaged.
    """
    if not store.journal.exists():
        return []
    try:
        study = optuna.load_study(study_name=store.name, storage=_storage(store.journal))
    except KeyError:  # the driver has not created it yet
        return []
    return _records(study.get_trials(deepcopy=False))


def _storage(journal: Path) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(journal)))
    except OSError as error:
        raise LrsearchError(f"study file {journal} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise LrsearchError(
            f"study file {journal} is damaged at line {_damaged_line(journal)}; "
            "restore it from a copy, or delete the sweep's folder to start again"
        ) from error


def _damaged_line(journal: Path) -> int:
    number = 0
    for number, line in enumerate(journal.read_bytes().splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError:
            return number
    return number


def _discard_torn_line(journal: Path) -> None:
    """Cut a last line that a killed driver did not finish: what it would have said is said again."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with journal.open("r+b") as file:
            file.truncate(whole)


def _records(trials: Sequence[FrozenTrial]) -> list[TrialRecord]:
    return [_record(trial) for trial in trials if trial.state in _STATES and "method" in trial.user_attrs]


def _record(trial: FrozenTrial) -> TrialRecord:
    attributes = trial.user_attrs
    metrics = attributes.get("metrics") or {}
    known: dict[str, Any] = {name: metrics.get(name) for name in DIRECTIONS}
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        method=attributes["method"],
        hyperparameters=attributes["hyperparameters"],
        reason=attributes.get("reason"),
        extra={name: value for name, value in metrics.items() if name not in DIRECTIONS},
        **known,
    )
