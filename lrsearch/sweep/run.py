"""The driver: from a space and a folder to a finished sweep on Ray, again and again if need be."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths of a space file mean the driver's folder

import ray
from ray import tune

from lrsearch.dense import DenseSpec, load_dense_record, prepare_dense
from lrsearch.errors import LrsearchError
from lrsearch.observer import SweepInfo, SweepObserver
from lrsearch.record import DenseRecord, Report
from lrsearch.space import Space
from lrsearch.sweep.searcher import ReportForwarder, RungScheduler, StudySearcher
from lrsearch.sweep.session import WORKER_LIVES, SweepSession
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import SweepStudy
from lrsearch.sweep.trainable import TrialTrainable
from lrsearch.trial import evaluate_test
from lrsearch.trial_spec import TrialSpec


def run_sweep(
    space: Space,
    store: SweepStore,
    observers: Sequence[SweepObserver] = (),
    address: str | None = None,
    time_budget: float | None = None,
) -> bool:
    """Run a sweep until all its trials have ended, starting it or continuing it.

    Args:
        space: what is searched; it must be the space that the sweep was started with.
        store: the sweep's folder; the caller holds its lock.
        observers: told of everything that happens.
        address: a Ray cluster (``auto``, ``host:port``, ``ray://...``); None starts Ray on this machine.
        time_budget: seconds after which running trials are put aside for the next run.

    Returns:
        Whether every trial has ended; otherwise run it again.

    Raises:
        LrsearchError: the model, the data, the study or a checkpoint is unusable.
    """
    with _terminate_as_interrupt():
        study = SweepStudy(store, space)
        outcome = "interrupted"
        started = time.monotonic()
        try:
            with _ray(address):
                info = _info(space, store, finished=len(study.finished()))
                for observer in observers:
                    observer.sweep_started(info)
                dense, folder = _dense(space, store, observers)
                session = SweepSession(space, store, study, dense, str(folder), observers)
                if session.remaining:
                    left = None if time_budget is None else max(1.0, time_budget - (time.monotonic() - started))
                    _search(session, info.workers, left)
                if len(session.records) >= space.search.trials:
                    _test_front(session)
                    outcome = "finished"
        except KeyboardInterrupt:
            pass
        finally:
            for observer in observers:
                observer.sweep_stopped(outcome)
        return outcome == "finished"


def _search(session: SweepSession, workers: int, time_budget: float | None) -> None:
    resources = session.space.resources
    trainable = tune.with_resources(TrialTrainable, {"cpu": resources.cpus, "gpu": resources.gpus})
    # Tune's own files are of no use to a later run: the study and the trials' folders hold everything.
    scratch = session.store.folder / "ray"
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(session),
            scheduler=RungScheduler(session),
            num_samples=session.remaining,
            max_concurrent_trials=workers,
            reuse_actors=True,
            time_budget_s=time_budget,
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(scratch),
            callbacks=[ReportForwarder(session)],
            failure_config=tune.FailureConfig(max_failures=WORKER_LIVES - 1),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _dense(space: Space, store: SweepStore, observers: Sequence[SweepObserver]) -> tuple[DenseRecord, Path]:
    """Train or load the dense network on a worker, because the driver's machine may have no GPU."""
    resources = space.resources
    spec = DenseSpec(
        model=space.model,
        data=space.data,
        train=space.train.model_dump(mode="json"),
        seed=space.search.seed,
        workplace=space.workplace(),
    )
    folder = store.cache / f"dense-{spec.key()}"

    @ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, num_returns="streaming", max_retries=WORKER_LIVES)
    def prepare() -> Iterator[Report]:
        yield from prepare_dense(spec, folder)

    with _plain_errors():
        for reference in prepare.remote():  # type: ignore[attr-defined]
            report = ray.get(reference)
            for observer in observers:
                observer.dense_reported(report)
    dense = load_dense_record(folder)
    for observer in observers:
        observer.dense_finished(dense)
    return dense, folder


def _test_front(session: SweepSession) -> None:
    """Evaluate the front on the test split, once for each member."""
    resources = session.space.resources

    @ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=WORKER_LIVES)
    def test(spec: TrialSpec, folder: Path) -> float:
        return evaluate_test(spec, folder)

    specs = session.front_specs()
    with _plain_errors():
        accuracies = ray.get([test.remote(spec, session.store.trial(spec.number)) for spec in specs])
    for spec, accuracy in zip(specs, accuracies, strict=True):
        session.set_test_accuracy(spec.number, accuracy)
    session.publish_front()


def _info(space: Space, store: SweepStore, finished: int) -> SweepInfo:
    return SweepInfo(
        name=store.name,
        folder=store.folder,
        trials=space.search.trials,
        finished=finished,
        workers=_workers(space),
        objectives=dict(space.objectives),
        space=space.model_dump(mode="json"),
    )


def _workers(space: Space) -> int:
    """How many trials fit side by side.

    Raises:
        LrsearchError: not even one fits.
    """
    available, resources = ray.cluster_resources(), space.resources  # type: ignore[no-untyped-call]
    cpus, gpus = available.get("CPU", 0.0), available.get("GPU", 0.0)
    if resources.cpus > cpus or resources.gpus > gpus:
        raise LrsearchError(
            f"resources asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs per trial, "
            f"but Ray has {cpus:g} CPUs and {gpus:g} GPUs"
        )
    by_cpu = int(cpus / resources.cpus)
    return min(by_cpu, int(gpus / resources.gpus)) if resources.gpus else by_cpu


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    try:
        ray.init(
            # "local" rather than nothing, which would join whatever cluster was last started here, dead or alive.
            address=address or os.environ.get("RAY_ADDRESS") or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise LrsearchError(f"Ray could not be reached at {address or 'this machine'}: {error}") from error
    try:
        with _terminate_as_interrupt():  # again: starting Ray installs a handler that aborts
            yield
    finally:
        ray.shutdown()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise what a worker raised, not Ray's wrapping of it."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, LrsearchError):
            raise error.cause from None
        raise


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM (a scheduler's or container's way of stopping us) as Ctrl+C."""

    def interrupt(_: int, frame: Any) -> None:
        on_interrupt = signal.getsignal(signal.SIGINT)
        if not callable(on_interrupt):  # ignored, as under nohup
            raise KeyboardInterrupt
        on_interrupt(signal.SIGINT, frame)

    previous = None
    with suppress(ValueError):  # only the main thread may install handlers
        previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
