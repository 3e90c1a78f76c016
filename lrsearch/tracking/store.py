"""Where MLflow keeps the runs: by default one sqlite file for all sweeps of a storage folder."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lrsearch.errors import LrsearchError, hide_passwords

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "lrsearch.key"
"""The tag by which a run is found again: ``<sweep>``, or ``<sweep>/<number>`` of a trial."""

_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""MLflow's own retries would hold a sweep that ends for minutes; the tracker retries by itself."""
_FIRST_TIMEOUT = "8"


def tracking_uri(uri: str | None, storage: Path) -> str:
    """The MLflow tracking URI: the one given, or the sqlite file ``mlflow.db`` of the storage folder."""
    return uri if uri is not None else f"sqlite:///{_database(storage)}"


def artifact_location(uri: str | None, storage: Path, sweep: str) -> str | None:
    """Where a new experiment keeps its artifacts: a folder in the storage, or None where a server decides."""
    if uri is not None and uri.startswith(("http://", "https://", "databricks")):
        return None
    return (storage.resolve() / "mlartifacts" / sweep).as_uri()


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
            client = MlflowClient(tracking_uri=where)
            client.search_experiments(max_results=1)
    except Exception as error:  # sqlalchemy, requests and MLflow each have their own
        raise LrsearchError(f"MLflow store {where} cannot be opened: {first_line(error)}") from error
    return client


def ui_command(uri: str | None, storage: Path, port: int = 5000) -> list[str]:
    """The command that shows the store in MLflow's UI, at http://127.0.0.1:<port>.

    Raises:
        LrsearchError: the storage folder has no store yet, or the store is a server with a UI of its own.
    """
    if uri is not None and uri.startswith(("http://", "https://")):
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
    client = connect(uri, storage)
    experiment = client.get_experiment_by_name(sweep)
    if experiment is not None:
        for run in client.search_runs([experiment.experiment_id], f"tags.`{KEY}` = '{sweep}'", max_results=1):
            # Without workflowType MLflow 3 opens its pages for language models.
            return (
                f"http://127.0.0.1:{port}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
                "/artifacts/front/pareto.html?workflowType=machine_learning"
            )
    raise LrsearchError(f"MLflow store {tracking_uri(uri, storage)} holds no sweep named {sweep!r}")


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
