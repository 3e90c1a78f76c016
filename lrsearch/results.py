"""What sweeps have found: read, and written as reports, pictures and models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.errors import LrsearchError
from lrsearch.files import read_json, writing
from lrsearch.front import gain, hypervolume, knee, mark_front
from lrsearch.object_storage import fetch
from lrsearch.observer import SweepInfo
from lrsearch.record import CONFIRMED, DIRECTIONS, TESTED, DenseRecord, TrialRecord
from lrsearch.sweep.store import DEFAULT_STORAGE, SweepStore, open_sweep, storage_folder, sweep_names

if TYPE_CHECKING:
    from lrsearch.compression import Watch  # imports PyTorch, which reading results does not need

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """What a sweep has found so far.

    Attributes:
        name: the sweep's name.
        folder: the sweep's folder; ``trials/<number>`` holds each trial's recipe and weights.
        dense: the dense network, or None before it is measured.
        trials: every trial that was started, ``pareto`` marked.
        objectives: metric -> "max" or "min".
        planned: how many trials the sweep will hold in the end.
    """

    name: str
    folder: Path
    dense: DenseRecord | None
    trials: list[TrialRecord]
    objectives: dict[str, str]
    planned: int

    @property
    def front(self) -> list[TrialRecord]:
        """The members of the front, most accurate first."""
        return sorted((t for t in self.trials if t.pareto), key=lambda t: -(t.accuracy or 0.0))

    @property
    def hypervolume(self) -> float:
        """The volume that the front dominates, in dimensionless gains over the dense network."""
        if self.dense is None:
            return 0.0
        gains = [gain(trial, self.dense, self.objectives) for trial in self.front]
        return hypervolume(gains, [0.0] * len(self.objectives))


def load_front(
    name: str,
    storage: str = DEFAULT_STORAGE,
    *,
    objectives: Sequence[str] | None = None,
    max_drop: float | None = None,
) -> Results:
    """Read what a sweep has found, also while it runs.

    Args:
        name: of the sweep.
        storage: folder that holds it.
        objectives: metrics to take the front over; by default those of the space.
        max_drop: only networks at most this many percentage points below the dense accuracy.

    Raises:
        LrsearchError: no such sweep, an unknown objective, or a damaged study.
    """
    from lrsearch.sweep.study import read_records

    store = open_sweep(name, storage)
    space = store.raw_space()
    for metric in objectives or ():
        if metric not in DIRECTIONS:
            raise LrsearchError(f"unknown objective {metric!r}, expected some of {', '.join(DIRECTIONS)}")
    chosen = {metric: DIRECTIONS[metric] for metric in objectives} if objectives else space["objectives"]
    constraints = dict(space["constraints"])
    if max_drop is not None:
        constraints["accuracy_drop"] = min(max_drop, constraints.get("accuracy_drop", max_drop))
    records = read_records(store)
    mark_front(records, chosen, constraints)
    for record in records:
        tested = read_json(store.trial(record.number) / TESTED, "delete it and resume the sweep")
        record.test_accuracy = tested["test_accuracy"] if tested else None
        record.extra |= read_json(store.trial(record.number) / CONFIRMED, "confirm the sweep again") or {}
    return Results(
        name=store.name,
        folder=store.folder,
        dense=_dense_record(store),
        trials=records,
        objectives=dict(chosen),
        planned=space["search"]["trials"] + sum(record.continues is not None for record in records),
    )


def status(name: str, storage: str = DEFAULT_STORAGE) -> dict[str, Any]:
    """How far a sweep has come; ``interrupted`` counts trials that a dead driver left unfinished."""
    store = SweepStore(storage_folder(storage), name)
    results = load_front(name, storage)
    count = {
        state: sum(t.state == state for t in results.trials) for state in ("complete", "failed", "pruned", "running")
    }
    alive = store.is_running()
    return {
        "name": name,
        "trials": results.planned,
        "finished": count["complete"],
        "failed": count["failed"],
        "pruned": count["pruned"],
        "running": count["running"] if alive else 0,
        "interrupted": 0 if alive else count["running"],
        "front_size": len(results.front),
        "hypervolume": results.hypervolume,
    }


def find_network(target: str, storage: str = DEFAULT_STORAGE) -> Path:
    """The folder of a compressed network: one itself, or that of ``NAME:TRIAL``, or of the knee of ``NAME``'s front.

    Raises:
        LrsearchError: there is no such folder, sweep or trial, or the trial left no network.
    """
    from lrsearch.persistence import RECIPE  # imports PyTorch, which reading results does not need

    if (Path(target) / RECIPE).exists():
        return Path(target)
    if Path(target).is_dir():
        raise LrsearchError(f"folder {target} has no {RECIPE}, expected what `lrsearch compress` or a trial wrote")
    name, _, number = target.partition(":")
    results = load_front(name, storage)
    complete = {str(trial.number): trial for trial in results.trials if trial.state == "complete"}
    if number and number not in complete:
        raise LrsearchError(f"sweep {name!r} has no complete trial {number!r}, expected one of {', '.join(complete)}")
    if not number and not results.front:
        raise LrsearchError(f"sweep {name!r} has no front yet, expected at least one complete trial")
    trial = complete[number] if number else knee(results.front, results.objectives)
    folder = results.folder / "trials" / str(trial.number)
    fetch(folder)
    return folder


def all_names(storage: str = DEFAULT_STORAGE) -> list[str]:
    """The sweeps of a storage folder."""
    return sweep_names(storage_folder(storage))


def tracking_location(name: str | None, storage: str = DEFAULT_STORAGE) -> tuple[str | None, Path]:
    """The tracking URI that a sweep was started with (None for the storage folder's own) and that folder."""
    folder = storage_folder(storage)
    if name is None:
        return None, folder
    store = open_sweep(name, storage)
    store.raw_space()
    return store.tracking_uri(), folder


def write_report(path: Path, name: str, storage: str = DEFAULT_STORAGE) -> dict[str, TrialRecord]:
    """Write what a sweep has found as one page that opens anywhere.

    Returns:
        What the page answers first -> the trial that it is.

    Raises:
        LrsearchError: there is no such sweep, it has not measured its dense network, or ``path`` cannot be written.
    """
    from lrsearch.sweep.study import read_importances
    from lrsearch.tracking import find_runs
    from lrsearch.tracking.panels import view_front
    from lrsearch.tracking.pareto_page import write_page
    from lrsearch.tracking.story import tell_story

    results = load_front(name, storage)
    dense, store = _measured_dense(results), SweepStore(storage_folder(storage), name)
    info, ended = _described(results, store), _ended(results)
    try:
        links = find_runs(store.tracking_uri(), store.storage, name)
    except LrsearchError as error:
        _log.warning("the report has no links to runs: %s", error)
        links = None
    view = view_front(info, dense, ended)
    story = tell_story(info, dense, ended, links, importances=read_importances(store))
    with writing("--out", path):
        write_page(path, view, story)
    return view.answers


def write_front_picture(
    path: Path,
    name: str,
    storage: str = DEFAULT_STORAGE,
    *,
    objectives: Sequence[str] | None = None,
    max_drop: float | None = None,
) -> None:
    """Write a sweep's front as a picture: accuracy against FLOPs, throughput and parameters.

    Args:
        path: ends in .png, .svg or .pdf.
        name: of the sweep.
        storage: folder that holds it.
        objectives: as of ``load_front``.
        max_drop: as of ``load_front``.

    Raises:
        LrsearchError: there is no such sweep, it has not measured its dense network, or ``path`` cannot be written.
    """
    from lrsearch.tracking.panels import view_front
    from lrsearch.tracking.pareto_picture import write_picture

    _check_picture(path)
    results = load_front(name, storage, objectives=objectives, max_drop=max_drop)
    info = _described(results, SweepStore(storage_folder(storage), name))
    view = view_front(info, _measured_dense(results), _ended(results))
    with writing("--plot", path):
        write_picture(path, view)


def write_method_curves(path: Path, name: str, storage: str = DEFAULT_STORAGE) -> None:
    """Write what each method gives up for what it removes as a picture: compressed only, retrained, at each loss.

    Raises:
        LrsearchError: there is no such sweep, it has not measured its dense network, or ``path`` cannot be written.
    """
    from lrsearch.tracking.curves_picture import write_curves
    from lrsearch.tracking.panels import method_colours

    _check_picture(path)
    results = load_front(name, storage)
    dense = _measured_dense(results)
    methods = SweepStore(storage_folder(storage), name).raw_space()["methods"]
    with writing("--plot", path):
        write_curves(path, name, dense, results.trials, method_colours(methods, results.trials))


def log_models(
    target: str, register: str | None = None, storage: str = DEFAULT_STORAGE, watch: Watch | None = None
) -> dict[int, str]:
    """Log networks as MLflow models of their trials' runs, once each.

    Args:
        target: ``NAME`` for every member of a sweep's front, ``NAME:TRIAL`` for one trial.
        register: name of a registered model that gets a version with the alias ``knee``: the front's knee, or the
            trial that was named.
        storage: folder that holds the sweep.
        watch: told of each network.

    Returns:
        Number of a trial -> URI of its model, which ``mlflow.pytorch.load_model`` takes.

    Raises:
        LrsearchError: there is no such sweep or trial, MLflow does not hold its runs, or a network cannot be written.
    """
    from lrsearch.tracking import find_runs, models

    name, _, _ = target.partition(":")
    chosen = find_network(target, storage)
    results, store = load_front(name, storage), SweepStore(storage_folder(storage), name)
    uri = store.tracking_uri()
    links = find_runs(uri, store.storage, name)
    numbers = [int(chosen.name)] if ":" in target else [trial.number for trial in results.front]
    runs = {number: links.trials.get(number) for number in numbers} if links else dict.fromkeys(numbers)
    if missing := [str(number) for number, run in runs.items() if run is None]:
        raise LrsearchError(
            f"MLflow lacks runs of trials {', '.join(missing)}, fill them in with: lrsearch resume {name}"
        )
    networks = {run: results.folder / "trials" / str(number) for number, run in runs.items() if run is not None}
    logged = models.log_models(uri, store.storage, networks, register, runs[int(chosen.name)], watch)
    return {int(networks[run].name): model for run, model in logged.items()}


def _dense_record(store: SweepStore) -> DenseRecord | None:
    front = read_json(store.front / "front.json", "delete it and resume the sweep")
    return DenseRecord(**front["dense"]) if front else None


def _measured_dense(results: Results) -> DenseRecord:
    if results.dense is None:
        raise LrsearchError(
            f"sweep {results.name!r} has not measured its dense network yet, so there is nothing to show; "
            f"continue it with: lrsearch resume {results.name}"
        )
    return results.dense


def _described(results: Results, store: SweepStore) -> SweepInfo:
    return SweepInfo(results.name, results.folder, results.planned, 0, 0, results.objectives, store.raw_space())


def _ended(results: Results) -> list[TrialRecord]:
    return [trial for trial in results.trials if trial.state != "running"]


def _check_picture(path: Path) -> None:
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise LrsearchError(f"--plot {path}: expected a name that ends in .png, .svg or .pdf")
