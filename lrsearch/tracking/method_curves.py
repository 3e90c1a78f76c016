"""What each method gives up for what it removes: the compress-only, retrain and delta curves of the ALDS paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lrsearch.front import pareto_mask
from lrsearch.record import DenseRecord, TrialRecord

Reduction = Literal["cr_p", "cr_f"]
Stage = Literal["compressed", "retrained"]
Place = tuple[float, float]
"""Percent removed, and accuracy lost in percentage points."""


@dataclass(frozen=True)
class MethodCurve:
    """One method after one stage.

    Attributes:
        method: its name.
        places: all its networks.
        best: those that no other of the method beats, by what they remove: at an accepted loss the last one within it
            removes most.
    """

    method: str
    places: list[Place]
    best: list[Place]


def method_curves(
    dense: DenseRecord, records: Sequence[TrialRecord], reduction: Reduction, stage: Stage
) -> list[MethodCurve]:
    """The curve of every method with a complete trial, in the order of their first trials."""
    curves = []
    lost = _LOST[stage]
    for method in dict.fromkeys(record.method for record in records):
        places = sorted(
            (removed, drop)
            for record in records
            if record.method == method and record.state == "complete"
            if (removed := getattr(record, reduction)) is not None and (drop := lost(dense, record)) is not None
        )
        kept = pareto_mask(places, ["max", "min"])
        best = [place for place, is_kept in zip(places, kept, strict=True) if is_kept]
        if places:
            curves.append(MethodCurve(method, places, best))
    return curves


def _compressed(dense: DenseRecord, record: TrialRecord) -> float | None:
    accuracy = record.extra.get("compressed_accuracy")
    return None if accuracy is None else dense.accuracy - accuracy


_LOST: dict[Stage, Callable[[DenseRecord, TrialRecord], float | None]] = {
    "compressed": _compressed,
    "retrained": lambda _, record: record.accuracy_drop,
}
