"""The program that the verbs belong to, and how it fails."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from lrsearch.cli import environment, networks, results, running
from lrsearch.errors import LrsearchError, hide_passwords

app = typer.Typer(
    help="Search for the best low-rank compression of a trained neural network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for group in (running, results, networks, environment):
    app.add_typer(group.verbs)


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    if debug:
        os.environ["LRSEARCH_DEBUG"] = "1"


def main() -> None:
    """Entry point: faults become one sentence on stderr and exit status 1."""
    try:
        app(prog_name="lrsearch")
    except LrsearchError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error} (run again with `lrsearch --debug` for the traceback)")


def _fail(message: str) -> None:
    if os.environ.get("LRSEARCH_DEBUG"):
        raise  # noqa: PLE0704 - called while the error is being handled
    print(f"error: {hide_passwords(message)}", file=sys.stderr)
    sys.exit(1)
