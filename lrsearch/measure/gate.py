"""One device, many workers: they all work at once, or one measures alone."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lrsearch.errors import LrsearchError


class DeviceGate:
    """A readers-writer lock on one device of this machine, shared by all processes of one user.

    Working (a training step, an evaluation batch, a unit of compression) is reading: any number at once.
    Measuring is writing: it waits until running steps end and holds new ones back. Whoever wants to enter
    first passes a turnstile, which a measurement keeps shut from the moment it waits, so that steps that
    never cease cannot starve it.

    The locks are ``flock`` locks on two files, so the kernel drops them with the process: killing a holder
    blocks nobody. Files are opened for each entry: a process forked outside ``work`` inherits no lock; fork
    none inside. Entering and leaving ``work`` takes about 12 microseconds. Entering again is allowed in one
    way, to measure within ``work``.

    Args:
        device: what is guarded; a CUDA device is known by its UUID, since its index differs between workers.
        folder: where the lock files are; by default a folder of this user under ``tempfile.gettempdir()``.

    Raises:
        LrsearchError: the folder cannot be used.
    """

    def __init__(self, device: str | torch.device, folder: Path | None = None) -> None:
        self._device = torch.device(device)
        folder = folder if folder is not None else Path(tempfile.gettempdir()) / f"lrsearch-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = folder.stat().st_uid
        except OSError as error:
            raise LrsearchError(f"folder {folder} for lock files cannot be used: {error.strerror}") from error
        if owner != os.getuid():
            raise LrsearchError(f"folder {folder} for lock files belongs to another user, set TMPDIR elsewhere")
        name = _physical_name(self._device)
        self._turnstile = folder / f"{name}.turnstile"
        self._room = folder / f"{name}.room"
        self._work: int | None = None

    @contextmanager
    def work(self) -> Iterator[None]:
        """Hold the device with others. On a GPU, leaving waits until the kernels queued inside have run."""
        self._begin_work()
        try:
            yield
        finally:
            self._end_work()

    @contextmanager
    def measurement(self) -> Iterator[None]:
        """Hold the device alone, among the processes that use this gate.

        Entered within this object's ``work``, the work is over meanwhile and begins anew afterwards.
        """
        working = self._work is not None
        if working:
            self._end_work()
        try:
            with _locked(self._turnstile, fcntl.LOCK_EX), _locked(self._room, fcntl.LOCK_EX):
                yield
        finally:
            if working:
                self._begin_work()

    def _begin_work(self) -> None:
        with _locked(self._turnstile, fcntl.LOCK_EX):
            self._work = _lock(self._room, fcntl.LOCK_SH)

    def _end_work(self) -> None:
        room, self._work = self._work, None
        try:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
        finally:
            if room is not None:
                os.close(room)


@contextmanager
def _locked(path: Path, operation: int) -> Iterator[None]:
    descriptor = _lock(path, operation)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, operation: int) -> int:
    """Open and lock ``path``; closing the returned descriptor unlocks it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _physical_name(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda-{torch.cuda.get_device_properties(index).uuid}"
