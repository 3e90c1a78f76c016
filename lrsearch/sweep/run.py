"""The driver: from a space and a folder to a finished sweep on Ray, again and again if need be."""

from __future__ import annotations

import errno
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import ray
from ray import tune

from lrsearch.dense import RECORD, DenseSpec, load_dense_record, prepare_dense
from lrsearch.errors import StorageError, StorageFullError
from lrsearch.object_storage import discard, fetch, remote, shown
from lrsearch.observer import SweepInfo, SweepObserver
from lrsearch.record import DenseRecord, Report
from lrsearch.space import Space
from lrsearch.sweep.cluster import connected, machines, plain_errors, terminate_as_interrupt
from lrsearch.sweep.head import watched_head
from lrsearch.sweep.lives import Lives
from lrsearch.sweep.placement import placement, require_room, reserved, room
from lrsearch.sweep.searcher import ReportForwarder, RungScheduler, StudySearcher
from lrsearch.sweep.session import WORKER_LIVES, SweepSession
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import SweepStudy
from lrsearch.sweep.trainable import TrialTrainable
from lrsearch.trial import evaluate_test, known_test_accuracy
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
        address: a Ray cluster that this machine is a node of (``auto``, ``host:port``); None starts Ray here.
        time_budget: seconds after which running trials are put aside for the next run.

    Returns:
        Whether every trial has ended; otherwise run it again.

    Raises:
        LrsearchError: the model, the data, the study or a checkpoint is unusable.
    """
    with terminate_as_interrupt():
        study = SweepStudy(store, space)
        outcome = "interrupted"
        started = time.monotonic()
        try:
            with connected(address), watched_head(command("resume", store, address), observers):
                info = sweep_info(space, store, study)
                for observer in observers:
                    observer.sweep_started(info)
                dense, folder = prepared_dense(space, store, observers)
                session = SweepSession(space, store, study, dense, str(folder), observers)
                if session.remaining:
                    left = None if time_budget is None else max(1.0, time_budget - (time.monotonic() - started))
                    _search(session, left)
                if session.finished:
                    _test_front(session)
                    outcome = "finished"
        except KeyboardInterrupt:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StorageFullError(f"storage {shown(store.storage)} is full; make room and resume") from error
        finally:
            for observer in observers:
                observer.sweep_stopped(outcome)
        return outcome == "finished"


def _search(session: SweepSession, time_budget: float | None) -> None:
    trainable = tune.with_resources(TrialTrainable, placement(session.space))
    # Tune's own files are of no use to a later run: the study and the trials' folders hold everything.
    scratch = session.store.folder / ".ray"
    file_system, path = remote(scratch) or (None, str(scratch))
    lives = Lives()
    searcher = StudySearcher(session, lambda: room(session.space, machines()), lives)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=RungScheduler(session, lives),
            num_samples=-1,  # the searcher says when it is over: a trial that lost its worker begins again
            reuse_actors=True,  # a new one imports PyTorch and loads network and data again before it begins
            time_budget_s=time_budget,
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex,
            storage_path=path,
            storage_filesystem=file_system,
            callbacks=[ReportForwarder(session)],
            verbose=0,
        ),
    )
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # calls a trial failed that has begun again
    try:
        with plain_errors():
            tuner.fit()
        searcher.check()
    finally:
        with suppress(StorageError):
            discard(scratch)


def prepared_dense(space: Space, store: SweepStore, observers: Sequence[SweepObserver]) -> tuple[DenseRecord, Path]:
    """Train or load the dense network on a worker, because the driver's machine may have no GPU."""
    resources = space.resources
    spec = DenseSpec(
        model=space.model,
        data=space.data,
        train=space.train.model_dump(mode="json"),
        seed=space.search.seed,
        workplace=space.workplace(),
        deployments=space.measure.deployments,
    )
    folder = store.cache / f"dense-{spec.key()}"

    @ray.remote(**reserved(resources), max_retries=WORKER_LIVES, num_returns="streaming")
    def prepare() -> Iterator[Report]:
        yield from prepare_dense(spec, folder)

    fetch(folder / RECORD)
    if spec.workplace.compares_speed or not (folder / RECORD).exists():  # else no worker has anything to do or to check
        with plain_errors():
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

    @ray.remote(**reserved(resources), max_retries=WORKER_LIVES)
    def test(spec: TrialSpec, folder: Path) -> float:
        return evaluate_test(spec, folder)

    members = [(spec, session.store.trial(spec.number)) for spec in session.front_specs()]
    known = {spec.number: told for spec, folder in members if (told := known_test_accuracy(folder)) is not None}
    new = [(spec, folder) for spec, folder in members if spec.number not in known]
    with plain_errors():
        accuracies = ray.get([test.remote(spec, folder) for spec, folder in new])
    known |= {spec.number: accuracy for (spec, _), accuracy in zip(new, accuracies, strict=True)}
    for number, accuracy in known.items():
        session.set_test_accuracy(number, accuracy)
    session.publish_front()


def sweep_info(space: Space, store: SweepStore, study: SweepStudy) -> SweepInfo:
    """What observers are told first; Ray is connected."""
    return SweepInfo(
        name=store.name,
        folder=store.folder,
        trials=space.search.trials + study.promoted(),
        finished=len(study.finished()),
        workers=require_room(space, machines()),
        objectives=dict(space.objectives),
        space=space.model_dump(mode="json"),
    )


def command(verb: str, store: SweepStore, address: str | None) -> str:
    """What a person types to go on with a sweep."""
    where = "" if address is None else f" --address {address}"
    return f"lrsearch {verb} {store.name} --storage {shown(store.storage)}{where}"
