"""Start and continue sweeps: what the command line and a notebook call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lrsearch.errors import LrsearchError
from lrsearch.object_storage import shown
from lrsearch.observer import SweepObserver
from lrsearch.results import Results, load_front
from lrsearch.sweep.store import DEFAULT_STORAGE, SweepStore, open_sweep, storage_folder

if TYPE_CHECKING:
    from lrsearch.compression import Watch  # imports PyTorch, which asking for help does not need
    from lrsearch.space import Space


def search(
    space: Path | str | Mapping[str, Any],
    name: str | None = None,
    *,
    storage: str = DEFAULT_STORAGE,
    tracking_uri: str | None = None,
    study: str | None = None,
    trials: int | None = None,
    address: str | None = None,
    settings: Mapping[str, str] | None = None,
    time_budget: float | None = None,
    observers: Sequence[SweepObserver] = (),
) -> Results:
    """Run a sweep, or continue the one of that name.

    Args:
        space: a search-space file, or its content as plain data.
        name: of the sweep; by default the file's name without its ending.
        storage: folder that holds the sweeps, or its URI.
        tracking_uri: an MLflow server or database; by default ``mlflow.db`` in the storage folder.
        study: database of the Optuna study of a new sweep, such as ``sqlite:///studies.db`` or
            ``postgresql://user@host/optuna``; by default a journal in the sweep's folder.
        trials: overrides ``search.trials``.
        address: a Ray cluster; by default Ray is started on this machine.
        settings: dotted key -> YAML text, laid over the space.
        time_budget: seconds after which the sweep is put aside, to be continued.
        observers: told of everything that happens.

    Raises:
        LrsearchError: the space is invalid, or differs from the one the sweep was started with.
    """
    from lrsearch.space import load_space, parse_space

    settings = dict(settings or {}) | ({"search.trials": str(trials)} if trials is not None else {})
    if isinstance(space, (str, Path)):
        name = name or Path(space).stem
        wanted = load_space(Path(space), settings)
    else:
        wanted = parse_space(space, settings=settings)
    if name is None:
        raise LrsearchError("a space given as data needs a name for its sweep")
    store = SweepStore(storage_folder(storage), name)
    return _run(wanted, store, tracking_uri, address, time_budget, observers, study)


def resume(
    name: str,
    *,
    storage: str = DEFAULT_STORAGE,
    tracking_uri: str | None = None,
    address: str | None = None,
    time_budget: float | None = None,
    observers: Sequence[SweepObserver] = (),
) -> Results:
    """Continue a sweep that was interrupted or killed; a finished one is only reported.

    Raises:
        LrsearchError: there is no such sweep, or its files are damaged.
    """
    store = open_sweep(name, storage)
    return _run(store.load_space(), store, tracking_uri, address, time_budget, observers)


def confirm(
    name: str,
    seeds: int = 3,
    *,
    storage: str = DEFAULT_STORAGE,
    tracking_uri: str | None = None,
    address: str | None = None,
    observers: Sequence[SweepObserver] = (),
    watch: Watch | None = None,
) -> Results:
    """Repeat the members of a sweep's front with other seeds, on the test split too.

    Means and standard deviations are in the records' ``extra`` from then on: ``accuracy_mean``, ``accuracy_std``,
    ``test_accuracy_mean``, ``test_accuracy_std`` and ``confirmed_seeds``. ``watch`` is told of each repetition that has
    ended.

    Raises:
        LrsearchError: there is no such sweep or it has no front yet, or ``seeds`` is not positive.
    """
    if seeds < 1:
        raise LrsearchError(f"--seeds is {seeds}, expected 1 or more")
    from lrsearch.sweep.confirm import confirm_front

    store = open_sweep(name, storage)
    space = store.load_space()
    with store.lock():
        confirm_front(space, store, seeds, (_tracker(store, tracking_uri), *observers), address, watch)
    return load_front(name, storage)


def _run(
    space: Space,
    store: SweepStore,
    tracking_uri: str | None,
    address: str | None,
    time_budget: float | None,
    observers: Sequence[SweepObserver],
    study: str | None = None,
) -> Results:
    from lrsearch.sweep.run import run_sweep
    from lrsearch.sweep.study_store import choose_database, require_database

    store.create()
    with store.lock():
        store.refresh()
        if study is not None:
            choose_database(store, study)
        require_database(store)
        _agree_on_space(space, store)
        run_sweep(space, store, (_tracker(store, tracking_uri), *observers), address, time_budget)
    return load_front(store.name, shown(store.storage))


def _tracker(store: SweepStore, tracking_uri: str | None) -> SweepObserver:
    """The tracker of a sweep, at a URI that is remembered or the one remembered."""
    from lrsearch.tracking import Tracker

    tracker = Tracker(tracking_uri or store.tracking_uri(), store.storage)
    if tracking_uri is not None and urlsplit(tracking_uri).password is None:  # a password is never written to a file
        store.remember_tracking(tracking_uri)
    return tracker


def _agree_on_space(space: Space, store: SweepStore) -> None:
    """Remember what is searched; a sweep that has tried nothing yet may still change its mind."""
    from lrsearch.space import differences
    from lrsearch.sweep.study import read_records
    from lrsearch.sweep.study_store import forget_study

    if store.exists() and (changes := differences(store.load_space(), space)):
        if read_records(store):
            raise LrsearchError(
                f"sweep {store.name!r} exists with another space ({'; '.join(changes)}); choose another --name, "
                f"or continue it as it is with: lrsearch resume {store.name}"
            )
        forget_study(store)  # it may hold starting points of the old space
    store.save_space(space)
