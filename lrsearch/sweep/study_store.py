"""Where the study of a sweep is kept: a journal in the sweep's folder, or a database."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from lrsearch.errors import LrsearchError
from lrsearch.files import read_json, write_json
from lrsearch.object_storage import shown, uri_of
from lrsearch.sweep.store import SweepStore

STUDY = "study.json"
"""Names the database and the study in it, for a sweep that keeps none in its folder."""


def choose_database(store: SweepStore, url: str) -> None:
    """Keep the study of a new sweep in a database; for one that does so already nothing changes.

    Args:
        store: the sweep's folder; the caller holds its lock.
        url: for SQLAlchemy, such as ``sqlite:///studies.db`` or ``postgresql://user@host/optuna``.

    Raises:
        LrsearchError: the URL holds a password, which would be written to a file, or the study is elsewhere, or
            the sweep is to be continued from any machine and its study would be on one.
    """
    parts = urlsplit(url)
    if not parts.scheme or parts.password is not None:
        raise LrsearchError(
            f"--study is {url.replace(parts.password, '***') if parts.password else url!r}, expected a URL such as "
            "sqlite:///studies.db or postgresql://user@host/optuna without a password (PGPASSWORD or ~/.pgpass has it)"
        )
    url = re.sub("^postgres(ql)?://", "postgresql+psycopg://", url)  # the driver of the extra `cluster`
    if url.startswith("sqlite:///"):
        if uri_of(store.folder):
            raise _no_database(f"--study is {url!r}")
        url = f"sqlite:///{Path(url.removeprefix('sqlite:///')).expanduser().resolve()}"
    known = _database(store)
    if known is None and not store.journal.exists():
        _name_study(store, url)
    elif known is None or known[0] != url:
        raise LrsearchError(
            f"--study is {url!r}, but sweep {store.name!r} keeps its study in {known[0] if known else store.journal}"
        )


def require_database(store: SweepStore) -> None:
    """See to it that a sweep in object storage, which has no journals, keeps its study in a database.

    Raises:
        LrsearchError: it does not.
    """
    if uri_of(store.folder) and _database(store) is None:
        raise _no_database(f"storage is {shown(store.storage)}, which holds no study")


def forget_study(store: SweepStore) -> None:
    """Begin with an empty study; what the old one held was never tried."""
    store.journal.unlink(missing_ok=True)
    known = _database(store)
    if known is not None:
        _name_study(store, known[0])


def has_study(store: SweepStore) -> bool:
    """Whether a study was ever begun."""
    return store.journal.exists() or _database(store) is not None


def open_storage(store: SweepStore) -> tuple[BaseStorage, str]:
    """The storage of a sweep's study, and the study's name in it.

    Raises:
        LrsearchError: the journal is damaged, or the database cannot be used.
    """
    known = _database(store)
    if known is None:
        require_database(store)
        return _journal(store.journal), store.name
    url, name = known
    try:
        return RDBStorage(url), name
    except (StorageInternalError, SQLAlchemyError, ImportError, ValueError) as error:
        raise LrsearchError(f"study database {url} cannot be used: {str(error).splitlines()[0]}") from error


def mend_journal(store: SweepStore) -> None:
    """Remove what a killed driver left half-written; only the holder of the sweep's lock may do this."""
    _discard_torn_line(store.journal)
    store.journal.with_name(store.journal.name + ".lock").unlink(missing_ok=True)


def _no_database(problem: str) -> LrsearchError:
    return LrsearchError(
        f"{problem}, expected --study with a database that every machine reaches, such as postgresql://user@host/optuna"
    )


def _database(store: SweepStore) -> tuple[str, str] | None:
    known = read_json(store.folder / STUDY, "restore it from a copy")
    return (known["url"], known["study"]) if known else None


def _name_study(store: SweepStore, url: str) -> None:
    """Write down a name that no other sweep has, since sweeps of many folders may share a database."""
    write_json(store.folder / STUDY, {"url": url, "study": f"{store.name}-{uuid.uuid4().hex[:8]}"})


def _journal(journal: Path) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(journal)))
    except OSError as error:
        raise LrsearchError(f"study file {journal} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise LrsearchError(
            f"study file {journal} is damaged at line {_damaged_line(journal)}; "
            "restore it from a copy, or delete the sweep's folder to start again"
        ) from error


def _damaged_line(journal: Path) -> int:
    number = 0
    for number, line in enumerate(journal.read_bytes().splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError:
            return number
    return number


def _discard_torn_line(journal: Path) -> None:
    """Cut a last line that a killed driver did not finish: what it would have said is said again."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with journal.open("r+b") as file:
            file.truncate(whole)
