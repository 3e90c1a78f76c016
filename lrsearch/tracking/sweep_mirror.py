"""A sweep as MLflow should show it: an experiment with one parent run and one child run per trial."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lrsearch.object_storage import shown
from lrsearch.observer import SweepInfo
from lrsearch.record import LAYERS, DenseRecord, Report, TrialRecord
from lrsearch.tracking import entries
from lrsearch.tracking.course import Course
from lrsearch.tracking.history_pictures import draw_history
from lrsearch.tracking.links import DEFAULT_SERVER, RunLinks
from lrsearch.tracking.mirror import RunMirror
from lrsearch.tracking.store import KEY, all_runs, first_line
from lrsearch.tracking.story import start_course, tell_story
from lrsearch.tracking.trial_page import draw_trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_log = logging.getLogger(__name__)
_FRONT_PACE = 5.0
"""Least seconds between two drawings of the front; never less than 20 times what a drawing takes."""
_FOLDER = "lrsearch.folder"
"""Tag of the parent run: the folder that holds the truth of which the experiment is a picture."""


class SweepMirror:
    """Told of the sweep's events in order, it only remembers; ``send`` writes what MLflow lacks.

    Neither is safe for several threads: both belong to the tracker's one thread.
    """

    def __init__(self, info: SweepInfo, artifacts: str | None, server: str = DEFAULT_SERVER) -> None:
        """Start with nothing known to MLflow.

        Args:
            info: of the sweep.
            artifacts: where a new experiment keeps its files; None where a server decides.
            server: the address of MLflow's UI, for links.
        """
        self._info = info
        self._artifacts = artifacts
        self._server = server
        self._experiment_id: str | None = None
        self._parent = RunMirror(info.name, info.name)
        self._children: dict[int, RunMirror] = {}
        self._left_over: dict[str, Run] = {}
        self._dense: DenseRecord | None = None
        self._course: Course | None = None
        self._records: dict[int, TrialRecord] = {}
        self._front: set[int] = set()
        self._changed: set[int] = set()
        self._front_is_drawn = True
        self._draw_not_before = 0.0
        self._parent.want_params(entries.parameters(info.space))
        self._describe_question()

    def dense_reported(self, report: Report) -> None:
        """An epoch of the dense training."""
        self._parent.want_metrics({f"dense_training/{k}": v for k, v in report.metrics.items()}, report.done)

    def dense_finished(self, dense: DenseRecord) -> None:
        """The dense network's figures."""
        self._dense = dense
        self._parent.want_metrics(entries.dense_metrics(dense))
        self._describe_question()

    def trial_started(self, number: int, method: str, hyperparameters: Mapping[str, Any]) -> None:
        """A child run, running."""
        child = self._child(number, method, hyperparameters)
        child.want_tags({"lrsearch.method": method, "lrsearch.state": "running"})
        child.want_status(entries.STATUS["running"])

    def trial_reported(self, number: int, report: Report) -> None:
        """A stage's or an epoch's metrics."""
        if number in self._children:
            self._changed.add(number)
            self._children[number].want_metrics(*entries.stage_metrics(report))

    def trial_finished(self, record: TrialRecord, epochs: Sequence[Mapping[str, float]], folder: Path) -> None:
        """A child run with all that its trial left."""
        self._records[record.number] = record
        self._front_is_drawn = False
        child = self._child_of(record)
        for epoch in epochs:
            child.want_metrics(*entries.epoch_metrics(epoch))
        child.want_metrics(entries.result_metrics(record))
        child.want_tags(entries.result_tags(record) | {"lrsearch.pareto": str(record.pareto).lower()})
        child.want_status(entries.STATUS[record.state])
        kept = (folder / name for name in ("recipe.json", LAYERS, "history.json"))
        for file in (*kept, *draw_history(folder), *draw_trial(folder, record, epochs)):
            if file.exists():
                child.want_file(file)

    def front_changed(self, front: Sequence[TrialRecord], hypervolume: float) -> None:
        """The front's tags and its course over the number of finished trials."""
        self._front_is_drawn = False
        self._parent.want_metrics({"hypervolume": hypervolume, "front_size": float(len(front))}, len(self._records))
        members = {record.number: record for record in front}
        for number in self._front - members.keys():
            self._records[number].pareto = False
            self._child_of(self._records[number]).want_tags({"lrsearch.pareto": "false"})
        for number in members.keys() - self._front:
            self._child_of(members[number]).want_tags({"lrsearch.pareto": "true"})
        for record in front:
            if record.test_accuracy is not None:
                self._child_of(record).want_metrics({"test_accuracy": record.test_accuracy})
        self._records |= members
        self._front = set(members)

    def stopped(self, outcome: str) -> None:
        """The parent run's end; children of an interrupted sweep stay open until it is resumed."""
        self._parent.want_status("FINISHED" if outcome == "finished" else "KILLED")
        self._draw_not_before = 0.0

    def front_networks(self) -> dict[str, Path]:
        """Ids of the runs of the front's members -> the folders of their trials."""
        runs = {number: self._children[number].run_id for number in sorted(self._front)}
        return {run: self._info.folder / "trials" / str(number) for number, run in runs.items() if run is not None}

    def unsent_runs(self) -> int:
        """How many runs MLflow does not hold in full."""
        return sum(run.unsent() for run in (self._parent, *self._children.values()))

    def next_drawing(self) -> float | None:
        """When the front wants to be drawn, on the monotonic clock, or None where it is up to date."""
        return None if self._front_is_drawn or self._dense is None else self._draw_not_before

    def send(self, client: MlflowClient) -> None:
        """Write what MLflow lacks.

        Raises:
            Exception: MLflow could not be reached; what is unsent is kept for the next call.
        """
        experiment_id = self._experiment_id or self._look_up(client)
        parent_id = self._parent.find_or_create(client, experiment_id)
        for number in sorted(self._changed):
            child = self._children[number]
            if child.key in self._left_over:
                child.adopt(client, self._left_over[child.key])
                del self._left_over[child.key]
            if child.unsent():
                child.send(client, experiment_id)
            self._changed.discard(number)
        drawing = self.next_drawing()
        if drawing is not None and time.monotonic() >= drawing:
            self._draw_front(client, parent_id)
        if self._parent.unsent():
            self._parent.send(client, experiment_id)

    def _child_of(self, record: TrialRecord) -> RunMirror:
        return self._child(record.number, record.method, record.hyperparameters)

    def _child(self, number: int, method: str, hyperparameters: Mapping[str, Any]) -> RunMirror:
        if number not in self._children:
            child = RunMirror(f"{self._info.name}/{number}", f"{number} {method}", self._parent)
            child.want_params({"method": method, **entries.parameters(hyperparameters)})
            child.want_metrics(entries.numbers(hyperparameters))
            self._children[number] = child
        self._changed.add(number)
        return self._children[number]

    def _describe_question(self) -> None:
        """Unless an earlier driver left a description, which has answers too."""
        if not self._info.finished:
            self._describe()

    def _describe(self) -> None:
        description = entries.describe(self._info, self._dense, list(self._records.values()), self._links())
        self._parent.want_tags({"mlflow.note.content": description})

    def _links(self) -> RunLinks | None:
        """To the runs that MLflow holds so far."""
        if self._experiment_id is None or self._parent.run_id is None:
            return None
        trials = {number: child.run_id for number, child in self._children.items() if child.run_id is not None}
        return RunLinks(self._experiment_id, self._parent.run_id, trials, self._server)

    def _look_up(self, client: MlflowClient) -> str:
        """The sweep's experiment, made if missing, and every run that earlier drivers left in it."""
        experiment = client.get_experiment_by_name(self._info.name)
        if experiment is None:
            experiment_id = client.create_experiment(self._info.name, self._artifacts)
        else:
            experiment_id = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment_id)
        self._left_over = {run.data.tags[KEY]: run for run in all_runs(client, experiment_id) if KEY in run.data.tags}
        parent = self._left_over.pop(self._parent.key, None)
        if parent is not None:
            self._parent.adopt(client, parent)
        self._warn_of_another_folder(parent)
        self._experiment_id = experiment_id
        return experiment_id

    def _warn_of_another_folder(self, parent: Run | None) -> None:
        folder = shown(self._info.folder.resolve())
        earlier = parent.data.tags.get(_FOLDER, folder) if parent is not None else folder
        if earlier != folder:
            _log.warning(
                "MLflow experiment %s already holds the sweep of %s: unless that folder was moved to %s, "
                "give one of the two another name",
                *(self._info.name, earlier, folder),
            )
        self._parent.want_tags({_FOLDER: folder})

    def _draw_front(self, client: MlflowClient, parent_id: str) -> None:
        from lrsearch.tracking.figures import write_front

        assert self._dense is not None  # noqa: S101 - next_drawing waits for it
        began = time.monotonic()
        records = list(self._records.values())
        self._course = self._course or start_course(self._info, self._dense)
        with TemporaryDirectory(prefix="lrsearch-") as folder:
            try:
                story = tell_story(self._info, self._dense, records, self._links(), self._course)
                write_front(Path(folder), self._info, self._dense, records, story)
            except Exception as error:  # a picture is not worth the numbers that come after it
                _log.warning("the front of sweep %s cannot be drawn: %s", self._info.name, first_line(error))
            client.log_artifacts(parent_id, folder, "front")
        self._describe()
        ended = time.monotonic()
        self._front_is_drawn = True
        self._draw_not_before = ended + max(_FRONT_PACE, 20 * (ended - began))
