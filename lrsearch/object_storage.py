"""Object storage: a folder of this machine stands for each folder of a bucket.

What is kept at ``s3://bucket/runs`` is read and written at ``~/.cache/lrsearch/s3:/bucket/runs``. Whatever is
written there through ``lrsearch.files`` is uploaded first, and ``fetch`` brings what other machines uploaded. So
everything else knows paths alone, and a path means the same on every machine. Other folders are left alone.

How a machine proves who it is, and where the storage is if not at Amazon or Google, is what its environment says:
``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` and so on, or the machine's own role.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lrsearch.errors import LrsearchError, StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem  # takes a moment, which folders need not wait for

_KINDS = {"s3:": "s3", "gs:": "gs"}
"""Parts of a path from which on it stands for object storage."""
_WEIGHTS = (".pt", ".safetensors")
_ATTEMPTS = 10
"""Which takes a minute or two."""
_SETTLED = 2.0
"""Seconds after which a file written in the same second would show by its time."""


def local_folder(uri: str) -> Path:
    """The folder of this machine that stands for ``s3://bucket/folder`` or ``gs://bucket/folder``.

    Raises:
        LrsearchError: there is no bucket in it, or more than bucket and folder.
    """
    parts = urlsplit(uri)
    folders = [part for part in parts.path.split("/") if part]
    if not parts.netloc or set("@:") & set(parts.netloc) or parts.query or parts.fragment or {".", ".."} & {*folders}:
        raise LrsearchError(f"storage is {uri!r}, expected {parts.scheme}://BUCKET/FOLDER")
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root.joinpath("lrsearch", f"{parts.scheme}:", parts.netloc, *folders).absolute()


def uri_of(path: Path) -> str | None:
    """What a path stands for, or None for what is on this machine's own file system."""
    for position, part in enumerate(path.parts):
        if part in _KINDS:
            return f"{_KINDS[part]}://{'/'.join(path.parts[position + 1 :])}"
    return None


def shown(path: Path) -> str:
    """A path as its user knows it."""
    return uri_of(path) or str(path)


def remote(path: Path) -> tuple[FileSystem, str] | None:
    """The file system that a path stands for a part of, and the path there."""
    uri = uri_of(path)
    if uri is None:
        return None
    kind, _, key = uri.partition("://")
    return _file_system(kind), key


def check(folder: Path) -> None:
    """See to it that a folder's bucket can be reached.

    Raises:
        StorageError: it cannot, or there is none of that name.
    """
    if (uri := uri_of(folder)) is not None:
        kind, _, key = uri.partition("://")
        file_system = _file_system(kind, attempts=5)  # a typing error should not take long to be told
        with _answering(folder):
            if not file_system.get_file_info(key.partition("/")[0]).type:
                raise StorageError(f"storage {uri} has no such bucket")


def upload(source: Path, path: Path) -> None:
    """Keep the content of ``source`` as what ``path`` stands for, complete or not at all."""
    if (where := remote(path)) is not None:
        file_system, key = where
        with _answering(path), source.open("rb") as content, file_system.open_output_stream(key) as out:
            shutil.copyfileobj(content, out, 2**20)


def fetch(path: Path, *, weights: bool = True) -> None:
    """Make a file, or a folder with all in it, what object storage holds.

    Args:
        path: below which nobody else writes but through ``upload``; locks and hidden files stay as they are.
        weights: whether to bring weights and checkpoints, too.

    Raises:
        StorageError: the storage does not answer.
    """
    if (where := remote(path)) is None:
        return
    file_system, key = where
    with _answering(path):
        held = {path / Path(info.path).relative_to(key): info for info in _files(file_system, key)}
        wanted = {file: info for file, info in held.items() if weights or file.suffix not in _WEIGHTS}
        stale = [file for file, info in wanted.items() if not _is_fresh(file, info)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda file: _download(file_system, held[file], file), stale))
    here = path.rglob("*") if path.is_dir() else [path]
    for file in here:
        if file.is_file() and file not in held and _is_kept(file.relative_to(path.parent)):
            file.unlink(missing_ok=True)


def folders(path: Path) -> list[Path]:
    """The folders directly in a folder, here or in object storage."""
    if (where := remote(path)) is None:
        return [folder for folder in path.glob("*") if folder.is_dir()]
    file_system, key = where
    with _answering(path):
        found = [Path(info.path).relative_to(key) for info in _files(file_system, key)]
    return sorted({path / file.parts[0] for file in found if len(file.parts) > 1})


def discard(path: Path) -> None:
    """Delete a file or a folder, if it is there, also in object storage."""
    if (where := remote(path)) is not None:
        file_system, key = where
        with _answering(path):
            for info in _objects(file_system, key):
                file_system.delete_file(info.path)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@cache
def _file_system(kind: str, attempts: int = _ATTEMPTS) -> FileSystem:
    """The file system of a kind of URI, which asks so often, ever more slowly, where the storage does not answer."""
    from pyarrow import fs

    if kind == "gs":
        elsewhere = _endpoint("STORAGE_EMULATOR_HOST")
        return fs.GcsFileSystem(
            anonymous=bool(elsewhere), retry_time_limit=timedelta(seconds=0.1 * 2**attempts), **elsewhere
        )
    return fs.S3FileSystem(
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        connect_timeout=5,
        allow_delayed_open=True,  # one request for a small file
        **_endpoint("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    )


def _endpoint(*variables: str) -> dict[str, Any]:
    """Where the storage is, if the environment says so."""
    for address in filter(None, map(os.environ.get, variables)):
        parts = urlsplit(address)
        return {"scheme": parts.scheme, "endpoint_override": parts.netloc}
    return {}


@contextmanager
def _answering(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise StorageError(f"storage {uri_of(path)} cannot be used: {reason}") from error


def _files(file_system: FileSystem, key: str) -> list[FileInfo]:
    """The object of a key, or those below it, as far as they belong to a sweep."""
    above = Path(key).parent
    return [info for info in _objects(file_system, key) if _is_kept(Path(info.path).relative_to(above))]


def _objects(file_system: FileSystem, key: str) -> list[FileInfo]:
    from pyarrow.fs import FileSelector, FileType

    below = file_system.get_file_info(FileSelector(key, recursive=True, allow_not_found=True))
    return [info for info in below or [file_system.get_file_info(key)] if info.type == FileType.File]


def _is_kept(path: Path) -> bool:
    """Whether a file is one of those that are uploaded."""
    return not path.name.endswith("lock") and not any(part.startswith(".") for part in path.parts)


def _is_fresh(file: Path, info: FileInfo) -> bool:
    """Whether a file is what was downloaded from an object that nobody has written since."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return False
    return (status.st_size, status.st_mtime_ns) == (info.size, info.mtime_ns)


def _download(file_system: FileSystem, info: FileInfo, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.fetched")
    with file_system.open_input_stream(info.path) as content, temporary.open("wb") as out:
        shutil.copyfileobj(content, out, 2**20)
    settled = time.time() - info.mtime_ns / 1e9 > _SETTLED
    os.utime(temporary, ns=(0, info.mtime_ns if settled else 0))  # else it is fetched once more
    temporary.replace(file)
