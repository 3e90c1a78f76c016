"""One run of a sweep's driver, free of Ray: which trial next, what came of each, who is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lrsearch.errors import LrsearchError
from lrsearch.files import write_json
from lrsearch.front import gain, hypervolume, mark_front
from lrsearch.observer import SweepObserver
from lrsearch.record import DenseRecord, Report, TrialRecord
from lrsearch.space import Space
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import SweepStudy
from lrsearch.training import read_history
from lrsearch.trial import CHECKPOINT, TrialSpec, failed_result, read_result, write_result

WORKER_LIVES = 3
"""How many workers a trial may lose before it counts as the trial's own fault."""


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
        self._orphans = deque(self._recover())
        self.records = study.finished()
        for record in self.records:
            self._announce(record)
        self._left = space.search.trials - len(self.records) - len(self._orphans)
        self._update_front()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore of its own, which a sweep never uses."""
        return {}

    @property
    def remaining(self) -> int:
        """How many trials have yet to end."""
        return max(0, self._left) + len(self._orphans)

    def next_trial(self) -> TrialSpec | None:
        """The trial to run next, or None when all have been handed out."""
        if self._orphans:
            return self._spec(*self._orphans.popleft())
        if self._left <= 0:
            return None
        self._left -= 1
        return self._spec(*self._study.ask())

    def trial_started(self, spec: TrialSpec) -> None:
        """Tell the observers that a worker runs a trial."""
        for observer in self._observers:
            observer.trial_started(spec.number, spec.method, spec.hyperparameters)

    def trial_reported(self, number: int, report: Report) -> None:
        """Tell the observers how a trial is getting on."""
        for observer in self._observers:
            observer.trial_reported(number, report)

    def trial_ended(self, number: int, worker_died: bool) -> None:
        """Take a trial's result into the study; without one it stays unfinished, for the next driver."""
        folder = self.store.trial(number)
        if read_result(folder) is None:
            if not worker_died:
                return
            folder.mkdir(parents=True, exist_ok=True)
            write_result(folder, failed_result(f"its worker process died {WORKER_LIVES} times"))
        self.records.append(self._tell(number))
        self._announce(self.records[-1])
        self._update_front()

    def front_specs(self) -> list[TrialSpec]:
        """The specs of the front's members."""
        return [self._spec(r.number, r.method, r.hyperparameters) for r in self.records if r.pareto]

    def set_test_accuracy(self, number: int, accuracy: float) -> None:
        """Add what the test split says of a member of the front."""
        for record in self.records:
            if record.number == number:
                record.test_accuracy = accuracy

    def publish_front(self) -> None:
        """Write the front as a file and tell the observers."""
        gains = [gain(record, self._dense, self.space.objectives) for record in self.records if record.pareto]
        volume = hypervolume(gains, [0.0] * len(self.space.objectives))
        front = {
            "dense": asdict(self._dense),
            "trials": [record.to_json() for record in self.records if record.pareto],
            "hypervolume": volume,
        }
        write_json(self.store.front / "front.json", front)
        for observer in self._observers:
            observer.front_changed(self.records, volume)

    def _recover(self) -> list[tuple[int, str, dict[str, Any]]]:
        """Finish what ended while no driver was looking; return what has to be continued."""
        orphans = []
        for orphan in self._study.unfinished():
            number = orphan[0]
            if read_result(self.store.trial(number)) is not None:
                self._tell(number)
                continue
            checkpoint = self.store.trial(number) / CHECKPOINT
            if checkpoint.exists():
                read_history(checkpoint)
            orphans.append(orphan)
        return orphans

    def _tell(self, number: int) -> TrialRecord:
        result = read_result(self.store.trial(number))
        if result is None:
            raise LrsearchError(f"trial {number} has no result in {self.store.trial(number)}")
        return self._study.tell(number, result)

    def _announce(self, record: TrialRecord) -> None:
        folder = self.store.trial(record.number)
        result = read_result(folder) or failed_result("its result was deleted")
        for observer in self._observers:
            observer.trial_finished(record, result["epochs"], folder)

    def _update_front(self) -> None:
        mark_front(self.records, self.space.objectives, self.space.constraints)
        self.publish_front()

    def _spec(self, number: int, method: str, hyperparameters: dict[str, Any]) -> TrialSpec:
        space = self.space
        return TrialSpec(
            number=number,
            method=method,
            hyperparameters=hyperparameters,
            model=space.model,
            data=space.data,
            retrain=space.retraining().model_dump(mode="json"),
            seed=space.search.seed * 100_003 + number,
            workplace=space.workplace(),
            dense_folder=self._dense_folder,
            cache_folder=str(self.store.cache),
        )
