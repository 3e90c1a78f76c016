"""The front once more, with seeds that no search picked for their luck."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import ray

from lrsearch.compression import Watch, watched
from lrsearch.errors import LrsearchError
from lrsearch.files import write_json
from lrsearch.object_storage import discard, fetch
from lrsearch.observer import SweepObserver
from lrsearch.outcome import failed_result, failure_reason, read_result, write_result
from lrsearch.pipeline import CHECKPOINT
from lrsearch.record import CONFIRMED
from lrsearch.space import Space
from lrsearch.sweep.cluster import connected, plain_errors, terminate_as_interrupt
from lrsearch.sweep.head import watched_head
from lrsearch.sweep.placement import reserved
from lrsearch.sweep.run import command, prepared_dense, sweep_info
from lrsearch.sweep.session import WORKER_LIVES, SweepSession
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import SweepStudy
from lrsearch.trial import evaluate_test, run_trial
from lrsearch.trial_spec import TrialSpec

SEED_STRIDE = 1_000_003
"""Between the seed of a trial and those of its repetitions; trials of one sweep are far fewer."""


def confirm_front(
    space: Space,
    store: SweepStore,
    seeds: int,
    observers: Sequence[SweepObserver] = (),
    address: str | None = None,
    watch: Watch | None = None,
) -> None:
    """Compress, train and test every member of the front again with so many other seeds.

    Killed and run again it goes on where it was. The trial that was searched does not count: it may be on the front
    because its seed was lucky. ``watch`` is told of each repetition that has ended.

    Raises:
        LrsearchError: the sweep has no front yet, or a file is damaged.
    """
    outcome = "interrupted"
    with terminate_as_interrupt():
        study = SweepStudy(store, space)
        try:
            with connected(address), watched_head(command(f"confirm --seeds {seeds}", store, address), observers):
                for observer in observers:
                    observer.sweep_started(sweep_info(space, store, study))
                dense, folder = prepared_dense(space, store, observers)
                session = SweepSession(space, store, study, dense, str(folder), observers)
                specs = session.front_specs()
                if not specs:
                    raise LrsearchError(f"sweep {store.name!r} has no front to confirm yet")
                _repeat(session, specs, seeds, watch)
                outcome = "finished" if session.finished else "interrupted"
        finally:
            for observer in observers:
                observer.sweep_stopped(outcome)


def _repeat(session: SweepSession, specs: Sequence[TrialSpec], seeds: int, watch: Watch | None) -> None:
    @ray.remote(max_retries=WORKER_LIVES)
    def repeat(spec: TrialSpec, folder: Path) -> dict[str, float] | None:
        return repetition(spec, folder)

    def start(spec: TrialSpec, seed: int) -> Any:
        resources = session.space.resources.of(spec.method)
        return repeat.options(**reserved(resources)).remote(*_other(spec, seed, session.store))

    pending = {spec.number: [start(spec, seed) for seed in range(1, seeds + 1)] for spec in specs}
    repetitions = [reference for references in pending.values() for reference in references]
    ended = (ray.get(reference) for reference in watched(repetitions, len(repetitions), watch))
    with plain_errors():
        for number in pending:
            found = [result for result in islice(ended, seeds) if result is not None]
            summary = summarize(found)
            write_json(session.store.trial(number) / CONFIRMED, summary)
            session.confirm(number, summary)
    session.publish_front()


def repetition(spec: TrialSpec, folder: Path) -> dict[str, float] | None:
    """Accuracies of one repetition on the validation and test splits; None where it failed."""
    fetch(folder)
    if read_result(folder) is None:
        try:
            for _ in run_trial(spec, folder):
                pass
        except Exception as error:
            folder.mkdir(parents=True, exist_ok=True)
            write_result(folder, failed_result(failure_reason(error)))
        discard(folder / CHECKPOINT)
    result = read_result(folder)
    if result is None or result["state"] != "complete":
        return None
    return {"accuracy": result["metrics"]["accuracy"], "test_accuracy": evaluate_test(spec, folder)}


def summarize(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean and standard deviation (of a sample, 0 where there is only one) over repetitions."""
    summary: dict[str, float] = {"confirmed_seeds": len(found)}
    for name in ("accuracy", "test_accuracy") if found else ():
        values = [each[name] for each in found]
        summary[f"{name}_mean"] = statistics.fmean(values)
        summary[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return summary


def _other(spec: TrialSpec, seed: int, store: SweepStore) -> tuple[TrialSpec, Path]:
    """A repetition and its folder; it is run to its end, and from the dense network on."""
    other = replace(spec, seed=spec.seed + seed * SEED_STRIDE, constraints={}, continues=None)
    return other, store.trial(spec.number) / "confirm" / str(seed)
