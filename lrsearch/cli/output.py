"""How verbs print: tables for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """Standard output or error, with colours and tables as wide as the terminal where it is one."""
    from rich.console import Console

    return Console(stderr=stderr)


def quiet_stdout(format: str) -> AbstractContextManager[Any]:
    """Keep standard output for the JSON that follows: Ray prints there what it has to say of lost workers."""
    return redirect_stdout(sys.stderr) if format == "json" else nullcontext()


def say(screen: Console, text: str) -> None:
    """Print a sentence as it is, to be copied from: neither coloured nor broken into lines."""
    screen.print(text, highlight=False, soft_wrap=True, markup=False)


def print_json(content: Any) -> None:
    """Print plain data as JSON."""
    print(json.dumps(content, indent=2))


def print_csv(rows: list[dict[str, Any]]) -> None:
    """Print rows of the same keys as CSV, what is nested in them as JSON."""
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]) if rows else ["number"])
    writer.writeheader()
    for row in rows:
        writer.writerow({key: json.dumps(value) if isinstance(value, dict) else value for key, value in row.items()})
