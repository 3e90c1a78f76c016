"""How a sweep's front grew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from lrsearch.front import Front
from lrsearch.record import DenseRecord, TrialRecord


class Course:
    """The hypervolume after each trial that ended; trials may come a few at a time."""

    def __init__(self, objectives: Mapping[str, str], constraints: Mapping[str, float], dense: DenseRecord) -> None:
        """Start before the first trial; the arguments are those of ``Front``."""
        self.hypervolumes: list[float] = []
        self._front = Front(objectives, constraints, dense)
        self._seen: set[int] = set()

    def extend(self, records: Iterable[TrialRecord]) -> list[float]:
        """Take in those of the records that are new, in their order; returns the whole course."""
        for record in records:
            if record.number not in self._seen:
                self._seen.add(record.number)
                self._front.add(replace(record))  # which marks its members
                self.hypervolumes.append(self._front.hypervolume)
        return self.hypervolumes
