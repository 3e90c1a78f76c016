"""Files that are complete or absent, whenever the process that writes them dies."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lrsearch.errors import LrsearchError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; when the block ends well the new file takes the place of the old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a machine that loses power may keep the new name without the content
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
