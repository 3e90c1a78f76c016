"""A bar with an estimate of the time left, in a terminal; nothing where output is piped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lrsearch.cli.output import console

if TYPE_CHECKING:
    from lrsearch.compression import Watch
    from lrsearch.methods.base import Progress


@contextmanager
def progress_bar(label: str) -> Iterator[Watch]:
    """Show on standard error how far some work has come, until it ends; what is yielded is to be told of its steps."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console(stderr=True)
    with Bar(*columns, TextColumn("left"), console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(label, total=None)

        def watch(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total)

        yield watch
