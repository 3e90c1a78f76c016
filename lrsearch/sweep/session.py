"""One run of a sweep's driver, free of Ray: which trial next, what came of each, who is told."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lrsearch.errors import LrsearchError
from lrsearch.files import read_json, write_json
from lrsearch.front import Front, lowest_accuracy
from lrsearch.object_storage import discard, fetch
from lrsearch.observer import SweepObserver
from lrsearch.outcome import failed_result, pruned_result, read_result, write_result
from lrsearch.pipeline import CHECKPOINT
from lrsearch.record import CONFIRMED, IMPORTANCE, DenseRecord, Report, TrialRecord
from lrsearch.space import MEASURE, Space
from lrsearch.sweep.rungs import Rungs, Verdict
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import Asked, RungRecord, SweepStudy
from lrsearch.training import read_history
from lrsearch.trial import MEASURED
from lrsearch.trial_spec import TrialSpec

WORKER_LIVES = 3
"""How many workers of a trial may die by themselves before it counts as the trial's own fault."""
FRONT_PACE = 1.0
"""Least seconds between two writings of the front's file while trials run; never less than 20 times what one takes."""


@dataclass
class _Running:
    """A trial that was handed out, and what is known of it so far."""

    asked: Asked
    measured: dict[str, float] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)


class SweepSession:
    """Keeps the study, the observers and the front in step while trials come and go."""

    def __init__(
        self,
        space: Space,
        store: SweepStore,
        study: SweepStudy,
        dense: DenseRecord,
        dense_folder: str,
        observers: Sequence[SweepObserver],
    ) -> None:
        """Take the sweep up where an earlier driver left it.

        Raises:
            LrsearchError: the checkpoint of an unfinished trial is damaged.
        """
        self.space, self.store = space, store
        self._study, self._dense, self._dense_folder, self._observers = study, dense, dense_folder, observers
        # The last of several rounds is measured when the others' training is over: rungs would come too late.
        rungs = space.search.rungs if space.retraining().rounds == 1 else None
        self._rungs = Rungs(rungs, space.objectives, lowest_accuracy(space.constraints, dense))
        study.compare_with(dense)
        self._running: dict[int, _Running] = {}
        self._orphans = deque(self._recover())
        self.records = study.finished()
        self._front = Front(space.objectives, space.constraints, dense)
        self._write_not_before = 0.0
        for record in self.records:
            self._front.add(record)
        for member in self._front.members:
            member.extra |= read_json(store.trial(member.number) / CONFIRMED, "confirm the sweep again") or {}
        for record in self.records:
            self._drop_checkpoint(record)
            self._announce(record)
        begun = [record.continues for record in self.records] + [asked.continues for asked in self._orphans]
        self._left = space.search.trials - begun.count(None)
        self.publish_front()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore of its own, which a sweep never uses."""
        return {}

    @property
    def remaining(self) -> int:
        """How many trials have yet to be handed out."""
        return max(0, self._left) + len(self._orphans)

    @property
    def finished(self) -> bool:
        """Whether every trial has ended."""
        return self.remaining == 0 and not self._running

    def next_trial(self) -> TrialSpec | None:
        """The trial to run next, or None when all have been handed out."""
        if self._orphans:
            return self._spec(self._orphans.popleft())
        if self._left <= 0:
            return None
        self._left -= 1
        asked = self._study.ask()
        self._running[asked.number] = _Running(asked)
        return self._spec(asked)

    def trial_started(self, spec: TrialSpec) -> None:
        """Tell the observers that a worker runs a trial."""
        for observer in self._observers:
            observer.trial_started(spec.number, spec.method, spec.hyperparameters)

    def trial_reported(self, number: int, report: Report) -> None:
        """Tell the observers how a trial is getting on, up to the rung that stops it."""
        verdicts = self._running[number].verdicts
        if report.stage == "retrain" and any(report.done > rung and not verdicts[rung].goes_on for rung in verdicts):
            return  # an epoch trained where a worker died before it could report the rung
        for observer in self._observers:
            observer.trial_reported(number, report)

    def stops(self, number: int, report: Report) -> bool:
        """Whether a trial ends with this report, because at a rung others are too far ahead."""
        running = self._running[number]
        if report.stage == "measure":
            running.measured = report.metrics
        elif report.stage == "retrain":
            if report.done > len(running.epochs) + 1:  # a lost worker or driver swallowed reports
                running.epochs = self._history(number)[: report.done - 1]
            running.epochs[report.done - 1 :] = [report.metrics]
        return self._judge(running)

    def worker_lost(self, number: int) -> None:
        """Hand a trial out again that has lost its worker, unless the worker left its result."""
        folder = self.store.trial(number)
        fetch(folder, weights=False)
        if read_result(folder) is None:
            self._orphans.append(self._running[number].asked)
        else:
            self.trial_ended(number, worker_died=False)

    def trial_ended(self, number: int, worker_died: bool) -> None:
        """Take a trial's result into the study; without one it stays unfinished, for the next driver."""
        folder = self.store.trial(number)
        fetch(folder, weights=False)
        if read_result(folder) is None:
            if not worker_died:
                return
            folder.mkdir(parents=True, exist_ok=True)
            write_result(folder, failed_result(f"its worker process died {WORKER_LIVES} times"))
        record = self._tell(number)
        self._running.pop(number, None)
        continued = [] if record.continues is None else [r for r in self.records if r.number == record.continues]
        self.records.append(record)
        for settled in (record, *continued, *self._front.add(record)):
            self._drop_checkpoint(settled)
        self._announce(record)
        if time.monotonic() > self._write_not_before:
            self._write_front()
        if record.pareto:
            self._tell_front()

    def front_specs(self) -> list[TrialSpec]:
        """The specs of the front's members."""
        return [self._spec(self._study.asked(record.number)) for record in self._front.members]

    def set_test_accuracy(self, number: int, accuracy: float) -> None:
        """Add what the test split says of a member of the front."""
        for record in self._front.members:
            if record.number == number:
                record.test_accuracy = accuracy

    def confirm(self, number: int, summary: dict[str, float]) -> None:
        """Add what other seeds gave for a member of the front, and tell the observers."""
        for record in self._front.members:
            if record.number == number:
                record.extra |= summary
                self._announce(record)

    def publish_front(self) -> None:
        """Write the front, and what made it, as files and tell the observers."""
        self._write_front()
        write_json(self.store.front / IMPORTANCE, self._study.importances())
        self._tell_front()

    def _write_front(self) -> None:
        began = time.monotonic()
        front = {
            "dense": asdict(self._dense),
            "trials": [record.to_json() for record in sorted(self._front.members, key=lambda record: record.number)],
            "hypervolume": self._front.hypervolume,
        }
        write_json(self.store.front / "front.json", front)
        ended = time.monotonic()
        self._write_not_before = ended + max(FRONT_PACE, 20 * (ended - began))

    def _tell_front(self) -> None:
        self._study.look_back_on({record.number for record in self._front.members})
        for observer in self._observers:
            observer.front_changed(self._front.members, self._front.hypervolume)

    def _recover(self) -> list[Asked]:
        """Finish what ended while no driver was looking; return what has to be continued."""
        unfinished = {asked.number: _Running(asked) for asked in self._study.unfinished()}
        for record in self._study.rung_records():
            self._rungs.judge(record.number, record.epochs, record.rung, record.metrics)
            if record.number in unfinished:
                unfinished[record.number].verdicts[record.rung] = record.verdict
        for finished in self._study.finished():
            self._learn_from(finished)
        orphans = []
        for number, running in unfinished.items():
            running.epochs = self._history(number)
            running.measured = read_json(self.store.trial(number) / MEASURED, "delete it to measure again") or {}
            if read_result(self.store.trial(number)) is None and not self._judge(running):
                self._running[number] = running
                orphans.append(running.asked)
            else:
                self._tell(number)
        return orphans

    def _drop_checkpoint(self, record: TrialRecord) -> None:
        """Keep the checkpoint of a member of the front, whose training may go on one day, and of one whose does."""
        if not record.pareto and all(record.number != each.asked.continues for each in self._running.values()):
            discard(self.store.trial(record.number) / CHECKPOINT)

    def _history(self, number: int) -> list[dict[str, float]]:
        checkpoint = self.store.trial(number) / CHECKPOINT
        fetch(checkpoint)
        return [epoch.row() for epoch in read_history(checkpoint)] if checkpoint.exists() else []

    def _judge(self, running: _Running) -> bool:
        """Judge a trial at the rungs it has reached, once at each; where it has to stop, leave its result."""
        asked = running.asked
        if asked.continues is not None:  # it was on the front
            return False
        for rung in self._rungs.epochs(asked.epochs):
            if rung > len(running.epochs):
                break
            verdict = running.verdicts.get(rung) or self._verdict(running, rung)
            if not verdict.goes_on:
                reason, metrics = f"stopped at epoch {rung}: {verdict}", self._metrics_at(rung, running)
                result = pruned_result(reason, metrics, running.epochs[:rung])
                write_result(self.store.trial(asked.number), result)
                return True
        return False

    def _verdict(self, running: _Running, rung: int) -> Verdict:
        """What a rung says of a trial, remembered in the study before anything follows from it."""
        asked = running.asked
        known = self._metrics_at(rung, running)
        metrics = {name: known[name] for name in (*self.space.objectives, "accuracy")}
        verdict = running.verdicts[rung] = self._rungs.judge(asked.number, asked.epochs, rung, metrics)
        self._study.remember_rung(RungRecord(asked.number, asked.epochs, rung, metrics, verdict))
        return verdict

    def _metrics_at(self, rung: int, running: _Running) -> dict[str, float]:
        """A trial's metrics as if its training had ended at a rung."""
        accuracy = running.epochs[rung - 1]["accuracy"]
        return running.measured | {
            "accuracy": accuracy,
            "accuracy_drop": self._dense.accuracy - accuracy,
            "seconds": running.measured["seconds"] + sum(epoch["seconds"] for epoch in running.epochs[:rung]),
        }

    def _tell(self, number: int) -> TrialRecord:
        result = read_result(self.store.trial(number))
        if result is None:
            raise LrsearchError(f"trial {number} has no result in {self.store.trial(number)}")
        record = self._study.tell(number, result)
        self._learn_from(record)
        return record

    def _learn_from(self, record: TrialRecord) -> None:
        """Let rungs learn from a trial that trained to its end."""
        if record.state == "complete":
            metrics = {name: getattr(record, name) for name in (*self.space.objectives, "accuracy")}
            self._rungs.ended(record.number, metrics)

    def _announce(self, record: TrialRecord) -> None:
        folder = self.store.trial(record.number)
        result = read_result(folder) or failed_result("its result was deleted")
        for observer in self._observers:
            observer.trial_finished(record, result["epochs"], folder)

    def _spec(self, asked: Asked) -> TrialSpec:
        space, drawn = self.space, asked.hyperparameters
        return TrialSpec(
            number=asked.number,
            method=asked.method,
            hyperparameters={key: value for key, value in drawn.items() if key != MEASURE},
            model=space.model,
            data=space.data,
            retrain=space.retraining(asked.epochs).model_dump(mode="json"),
            seed=asked.seed,
            workplace=space.workplace(drawn.get(MEASURE), asked.method),
            dense_folder=self._dense_folder,
            cache_folder=str(self.store.cache),
            constraints=space.constraints,
            threads=space.resources.of(asked.method).threads,
            continues=None if asked.continues is None else str(self.store.trial(asked.continues)),
        )
