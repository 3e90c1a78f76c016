"""The C library's memory allocator, kept from disturbing a measurement."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc reuse freed memory rather than give it back to the system.

    Whether a forward pass gives its activations back and takes fresh pages for the next depends on where the
    heap happens to end, thus on the process: the same network differed by 30 % between processes. Afterwards
    the thresholds are those at which glibc's own adaptation ends. Does nothing with other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)
