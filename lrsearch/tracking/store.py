"""Where MLflow keeps the runs: by default one sqlite file for all sweeps of a storage folder."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import urlsplit, urlunsplit

from lrsearch.errors import LrsearchError, hide_passwords
from lrsearch.object_storage import uri_of
from lrsearch.tracking.links import DEFAULT_SERVER, RunLinks

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEY = "lrsearch.key"
"""The tag by which a run is found again: ``<sweep>``, or ``<sweep>/<number>`` of a trial."""

_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""MLflow's own retries would hold a sweep that ends for minutes; the tracker retries by itself."""
_FIRST_TIMEOUT = "8"


def tracking_uri(uri: str | None, storage: Path) -> str:
    """The MLflow tracking URI: the one given, or the sqlite file ``mlflow.db`` of the storage folder."""
    return uri if uri is not None else f"sqlite:///{_database(storage)}"


def artifact_location(uri: str | None, storage: Path, sweep: str) -> str | None:
    """Where a new experiment keeps its artifacts: a folder in the storage, or None where a server decides.

    Beside the store of this machine, which resuming rebuilds on another, they are on this machine.
    """
    if uri is not None and uri.startswith(("http://", "https://", "databricks")):
        return None
    folder = storage.resolve() / "mlartifacts" / sweep
    return (uri_of(folder) if uri is not None else None) or folder.as_uri()


def connect(uri: str | None, storage: Path) -> MlflowClient:
    """Open the store, creating it or its tables where they are missing, and ask it one question.

    Raises:
        LrsearchError: the sqlite file is damaged or cannot be written, or the server does not answer.
    """
    if uri is None:
        _check_database(_database(storage))
    _quieten_migrations()
    from mlflow import MlflowClient

    where = tracking_uri(uri, storage)
    try:
        with _first_contact():
            if uri is None and not _database(storage).stat().st_size:
                _create_tables(_database(storage))
            client = MlflowClient(tracking_uri=where)
            client.search_experiments(max_results=1)
    except Exception as error:  # sqlalchemy, requests and MLflow each have their own
        advice = "; see that it runs, or give another address as --tracking-uri" if uri is not None else ""
        raise LrsearchError(f"MLflow store {where} cannot be opened: {first_line(error)}{advice}") from error
    return client


def ui_command(uri: str | None, storage: Path, port: int = 5000) -> list[str]:
    """The command that shows the store in MLflow's UI, at http://127.0.0.1:<port>.

    Raises:
        LrsearchError: the storage folder has no store yet, or the store is a server with a UI of its own.
    """
    if is_server(uri):
        raise LrsearchError(f"tracking URI {uri} is a server with a UI of its own: open it in a browser")
    if uri is None and not _database(storage).exists():
        raise LrsearchError(f"storage {storage} has no mlflow.db: run a sweep there first")
    return [
        *(sys.executable, "-m", "mlflow", "ui"),
        *("--backend-store-uri", tracking_uri(uri, storage)),
        *("--artifacts-destination", (storage.resolve() / "mlartifacts").as_uri()),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]


def front_address(uri: str | None, storage: Path, sweep: str, port: int = 5000) -> str:
    """The page of the UI that shows a sweep's front.

    Raises:
        LrsearchError: the store cannot be opened, or holds no such sweep.
    """
    links = find_runs(uri, storage, sweep)
    if links is None:
        where = tracking_uri(uri, storage)
        raise LrsearchError(
            f"MLflow store {where} holds no sweep named {sweep!r}, fill it in with: lrsearch resume {sweep}"
        )
    return f"http://127.0.0.1:{port}/{links.parent('front/pareto.html')}"


def find_runs(uri: str | None, storage: Path, sweep: str) -> RunLinks | None:
    """The runs of a sweep, or None where the store holds none.

    Raises:
        LrsearchError: the store cannot be opened.
    """
    if uri is None and not _database(storage).exists():
        return None
    client = connect(uri, storage)
    experiment = client.get_experiment_by_name(sweep)
    runs = (
        {}
        if experiment is None
        else {run.data.tags.get(KEY): run for run in all_runs(client, experiment.experiment_id)}
    )
    if experiment is None or sweep not in runs:
        return None
    ids = {int(key.rpartition("/")[2]): run.info.run_id for key, run in runs.items() if key and key != sweep}
    parent = runs[sweep].info.run_id
    return RunLinks(experiment.experiment_id, parent, ids, ui_address(uri))


def all_runs(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    """Every run of an experiment."""
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def ui_address(uri: str | None) -> str:
    """Where the UI of a tracking URI is: a server's own, without user and password, or what ``lrsearch ui`` starts."""
    if not is_server(uri):
        return DEFAULT_SERVER
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/")))


def is_server(uri: str | None) -> TypeGuard[str]:
    """Whether a tracking URI is a server with a UI of its own."""
    return uri is not None and uri.startswith(("http://", "https://"))


def first_line(error: BaseException) -> str:
    """An error as part of a one-line message."""
    return hide_passwords(next(iter(str(error).splitlines()), "")) or type(error).__name__


def _database(storage: Path) -> Path:
    return storage.resolve() / "mlflow.db"


def _check_database(path: Path) -> None:
    """Create the folder, and check the file, because SQLAlchemy's own words for damage help nobody."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            connection.execute("BEGIN IMMEDIATE").close()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise LrsearchError(f"MLflow store {path} cannot be written: {error}") from error
        verdict = str(error)
    except OSError as error:
        raise LrsearchError(f"storage folder {path.parent} cannot be written: {error.strerror}") from error
    if verdict != "ok":
        reason = " ".join(verdict.split())
        raise LrsearchError(
            f"MLflow store {path} is damaged ({reason}): restore it, or delete it to let resuming rebuild it"
        )


def _create_tables(path: Path) -> None:
    """Let MLflow make the tables of an empty file, and wait for the disk once instead of after each schema step.

    MLflow keeps connections that do not wait for the URI by which they were opened, which is used for nothing else.
    """
    from mlflow import MlflowClient
    from sqlalchemy import Engine, event

    def write_behind(connection: Any, _: object) -> None:
        ours = isinstance(connection, sqlite3.Connection)
        if ours and connection.execute("PRAGMA database_list").fetchone()[2] == str(path):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", write_behind)
    try:
        MlflowClient(tracking_uri=f"sqlite:///{path.parent}/./{path.name}").search_experiments(max_results=1)
    finally:
        event.remove(Engine, "connect", write_behind)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _quieten_migrations() -> None:
    """A new store logs each of its some fifty schema steps; nobody asked."""
    for name in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def _first_contact() -> Iterator[None]:
    """Be patient with a server as a sweep can afford, less so for a moment; the user's own settings win."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    timeout = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    if os.environ[timeout] != _PATIENCE[timeout]:
        yield
        return
    os.environ[timeout] = _FIRST_TIMEOUT
    try:
        yield
    finally:
        os.environ[timeout] = _PATIENCE[timeout]
