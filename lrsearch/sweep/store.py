"""Where a sweep keeps what it knows: one folder, one driver at a time."""

from __future__ import annotations

import fcntl
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch import object_storage
from lrsearch.errors import LrsearchError
from lrsearch.files import read_json, write_json
from lrsearch.sweep.lease import lease_holder, leased

if TYPE_CHECKING:
    from lrsearch.space import Space  # imports PyTorch, which reading results does not need

DEFAULT_STORAGE = "./lrsearch_runs"
SPACE = "space.json"
TRACKING = "tracking.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def storage_folder(uri: str) -> Path:
    """The folder that a ``--storage`` argument names, or that stands for it here, as an absolute path.

    Raises:
        LrsearchError: a URI of another kind than ``file://``, ``s3://`` or ``gs://``.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri).expanduser().resolve()
    if scheme == "file":
        return Path(rest).resolve()
    if scheme in ("s3", "gs"):
        return object_storage.local_folder(uri)
    raise LrsearchError(
        f"storage is {uri!r}, expected a folder (on a cluster, one that every node can reach), s3://BUCKET/FOLDER "
        "or gs://BUCKET/FOLDER"
    )


class SweepStore:
    """The folder of one sweep: ``space.json``, ``study.journal``, ``trials/<number>/``, ``cache/``, ``front/``."""

    def __init__(self, storage: Path, name: str) -> None:
        """Name the folder; nothing is created yet.

        Raises:
            LrsearchError: the name could leave the storage folder or confuse a shell.
        """
        if not _NAME.fullmatch(name) or ".." in name:
            raise LrsearchError(
                f"sweep name is {name!r}, expected letters, digits, '.', '_' and '-' (no '/' and no '..'), "
                "starting with a letter or digit"
            )
        self.name = name
        self.storage = storage
        self.folder = storage / name

    @property
    def journal(self) -> Path:
        """The Optuna study: the durable truth about every trial."""
        return self.folder / "study.journal"

    @property
    def cache(self) -> Path:
        """The dense network and what methods share between trials."""
        return self.folder / "cache"

    @property
    def front(self) -> Path:
        """The front as files, rewritten whenever a trial ends."""
        return self.folder / "front"

    def trial(self, number: int) -> Path:
        """The folder of one trial."""
        return self.folder / "trials" / str(number)

    def exists(self) -> bool:
        """Whether the sweep was ever started."""
        return (self.folder / SPACE).exists()

    def create(self) -> None:
        """Make the folder.

        Raises:
            LrsearchError: the storage folder cannot be written.
        """
        object_storage.check(self.storage)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise LrsearchError(f"storage folder {self.storage} cannot be written: {error.strerror}") from error

    def refresh(self) -> None:
        """Bring what others wrote to object storage, but for weights and checkpoints."""
        object_storage.fetch(self.folder, weights=False)

    def save_space(self, space: Space) -> None:
        """Remember what is searched."""
        write_json(self.folder / SPACE, space.model_dump(mode="json"))

    def load_space(self) -> Space:
        """What is searched.

        Raises:
            LrsearchError: there is no such sweep, or its space file is damaged.
        """
        from lrsearch.space import parse_space

        return parse_space(self.raw_space(), source=str(self.folder / SPACE))

    def raw_space(self) -> dict[str, Any]:
        """What is searched, as plain data and unchecked: enough to list results, and quick."""
        space = read_json(self.folder / SPACE, "restore it from a copy")
        if space is None:
            raise LrsearchError(f"no sweep {self.name!r} in {object_storage.shown(self.storage)}{self._others()}")
        return space

    def remember_tracking(self, uri: str) -> None:
        """Remember where the sweep is tracked."""
        write_json(self.folder / TRACKING, {"uri": uri})

    def tracking_uri(self) -> str | None:
        """Where the sweep is tracked, or None for the storage folder's own place.

        Raises:
            LrsearchError: the file that says so is damaged.
        """
        remembered = read_json(self.folder / TRACKING, "delete it and give --tracking-uri again")
        return remembered["uri"] if remembered else None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only driver of this sweep; the system frees the lock when the process ends, however it ends.

        In object storage it is a lease, which ends a minute after the process on another machine that held it.

        Raises:
            LrsearchError: another driver is running.
        """
        with (self.folder / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise LrsearchError(
                    f"sweep {self.name!r} is already being run by {file.read() or 'another process'}; "
                    "wait for it to end or interrupt it first"
                ) from error
            file.truncate(0)
            holder = f"process {os.getpid()} on {platform.node()}"
            file.write(holder)
            file.flush()
            with leased(self.folder, holder) if object_storage.uri_of(self.folder) else nullcontext():
                yield

    def is_running(self) -> bool:
        """Whether a driver holds the lock now."""
        if object_storage.uri_of(self.folder):
            return lease_holder(self.folder) is not None
        path = self.folder / "lock"
        if not path.exists():
            return False
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def _others(self) -> str:
        names = sweep_names(self.storage)
        return f"; there are: {', '.join(names)}" if names else "; start one with: lrsearch search SPACE.yaml"


def open_sweep(name: str, storage: str) -> SweepStore:
    """A sweep as its storage has it now."""
    store = SweepStore(storage_folder(storage), name)
    store.refresh()
    return store


def sweep_names(storage: Path) -> list[str]:
    """The sweeps of a storage folder, by name."""
    found = object_storage.folders(storage)
    for folder in found:
        object_storage.fetch(folder / SPACE)
    return sorted(folder.name for folder in found if (folder / SPACE).exists())
