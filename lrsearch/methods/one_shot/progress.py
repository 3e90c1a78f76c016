"""The progress of work that is done in parts."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from lrsearch.methods.base import Progress

_Result = TypeVar("_Result")


def counted(
    steps: Generator[Progress, None, _Result], offset: int, end: int, total: int
) -> Generator[Progress, None, _Result]:
    """The progress of one part of the work as that of the whole, up to ``end`` even where the part has fewer steps."""
    done = offset
    while True:
        try:
            done = offset + next(steps).done
        except StopIteration as stop:
            result: _Result = stop.value
            break
        yield Progress(done, total)
    for skipped in range(done + 1, end + 1):
        yield Progress(skipped, total)
    return result
