"""Files that are complete or absent, whenever the process that writes them dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lrsearch.errors import LrsearchError, StorageFullError
from lrsearch.object_storage import upload


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; when the block ends well the new file takes the place of the old.

    Raises:
        StorageFullError: there is no room for it, whatever the writer made of that.
        StorageError: it belongs to object storage, which does not answer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a machine that loses power may keep the new name without the content
        upload(temporary, path)  # first, so that nothing here is ever ahead of what others see
        temporary.replace(path)
    except Exception as error:
        if _is_full(temporary):
            raise StorageFullError(f"{path} cannot be written: its storage is full; make room and resume") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Write what a user asked for by an option.

    Raises:
        LrsearchError: the path cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise LrsearchError(f"{option} {path} cannot be written: {error.strerror}") from error


@contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Wait until no other process holds ``path``, and hold it; the kernel lets go of it when the process dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any] | None:
    """What ``write_json`` wrote, or None where there is no file.

    Raises:
        LrsearchError: the file is damaged; ``remedy`` says what to do about it.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LrsearchError(f"{path} is damaged ({error}); {remedy}") from error
    return content


def _is_full(beside: Path) -> bool:
    """Whether a little more can not be written to a file; libraries have errors of their own for a full disk."""
    try:
        with beside.open("ab") as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False
