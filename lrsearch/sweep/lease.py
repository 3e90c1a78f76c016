"""One driver at a time of a sweep in object storage, which has no locks: an object that its holder keeps renewing."""

from __future__ import annotations

import _thread
import platform
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from lrsearch.errors import LrsearchError, StorageError
from lrsearch.files import read_json, write_json
from lrsearch.object_storage import discard, fetch

LEASE = "driver.json"
_TERM = 60.0
"""Seconds for which a driver that nobody hears of any more keeps its sweep; clocks may differ by less."""
_RENEWAL = 15.0
_SETTLING = 1.0
"""Seconds in which a driver that began at the same moment has written its own, so that both see the later one."""


@contextmanager
def leased(folder: Path, holder: str) -> Iterator[None]:
    """Be the only driver of the sweep in a folder that stands for object storage.

    The caller is the only driver on this machine. A driver whose lease another has taken, since nobody heard of it
    for too long, is interrupted as by SIGTERM.

    Raises:
        LrsearchError: another driver is running.
    """
    path, mine, stopping = folder / LEASE, uuid.uuid4().hex, Event()
    other = lease_holder(folder)
    if other is not None and not other.endswith(f" on {platform.node()}"):
        raise _taken(folder, other)

    def renew() -> None:
        write_json(path, {"id": mine, "holder": holder, "until": time.time() + _TERM})

    def is_mine() -> bool:
        fetch(path)
        return (read_json(path, "delete it") or {}).get("id") == mine

    def keep() -> None:
        while not stopping.wait(_RENEWAL):
            with suppress(StorageError):  # for the sweep to say, when it needs the storage
                if not is_mine():
                    _thread.interrupt_main(signal.SIGTERM)  # SIGINT is ignored by what a script runs in the background
                    return
                renew()

    renew()
    time.sleep(_SETTLING)
    if not is_mine():
        raise _taken(folder, lease_holder(folder) or "another process")
    keeper = Thread(target=keep, name="lrsearch-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stopping.set()
        keeper.join()
        with suppress(StorageError):
            if is_mine():
                discard(path)


def lease_holder(folder: Path) -> str | None:
    """Who drives the sweep of a folder now, or None."""
    fetch(folder / LEASE)
    lease = read_json(folder / LEASE, "delete it")
    return lease["holder"] if lease and lease["until"] > time.time() else None


def _taken(folder: Path, holder: str) -> LrsearchError:
    return LrsearchError(
        f"sweep {folder.name!r} is already being run by {holder}; wait for it to end or interrupt it first "
        f"(one that was killed is forgotten after {_TERM:g} seconds)"
    )
