"""How far long work has come, in a terminal; nothing where output is piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lrsearch.cli.output import console

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lrsearch.compression import Watch
    from lrsearch.methods.base import Progress

_PACE = 0.1
"""Seconds between two pictures of the bar."""


@contextmanager
def progress_bar() -> Iterator[Callable[[str], Watch]]:
    """Show a bar with an estimate of the time left on standard error, until the work ends.

    What is yielded takes the name of a stage of the work, and returns what is to be told of the stage's steps. The bar
    is drawn when it is told something, never by a thread of its own: it must not disturb what is measured.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    left = TextColumn("{task.fields[left]}")
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn(), left)
    screen = console(stderr=True)
    hidden = not screen.is_terminal
    with Bar(*columns, console=screen, transient=True, disable=hidden, auto_refresh=False) as bar:
        task = bar.add_task("loading", total=None, left="")
        bar.refresh()
        drawn = -_PACE

        def stage(label: str) -> Watch:
            def watch(progress: Progress) -> None:
                nonlocal drawn
                bar.update(task, description=label, completed=progress.done, total=progress.total, left="left")
                if time.monotonic() - drawn >= _PACE:
                    bar.refresh()
                    drawn = time.monotonic()

            return watch

        yield stage


def working(text: str) -> AbstractContextManager[object]:
    """Say what takes a moment, of which no step is known."""
    return console(stderr=True).status(text)
