"""Options that several verbs take."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from lrsearch.arguments import without_password
from lrsearch.cli.completion import complete_sweep

Format = Literal["table", "json"]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print.")]


def _without_password(option: typer.CallbackParam, uri: str | None) -> str | None:
    return without_password(option.opts[0], uri)


Sweep = Annotated[str, typer.Argument(help="Name of the sweep.", autocompletion=complete_sweep)]
Storage = Annotated[
    str,
    typer.Option(
        help="Folder that holds the sweeps, on a cluster one that every node reaches; also s3:// and gs://.",
        metavar="URI",
        callback=_without_password,
    ),
]
Study = Annotated[
    str | None,
    typer.Option(
        help="Database for the Optuna study of a new sweep, without a password; by default a journal file.",
        metavar="URL",
        callback=_without_password,
    ),
]
Tracking = Annotated[
    str | None,
    typer.Option(
        help="MLflow server or database, without a password; by default mlflow.db in the storage folder.",
        metavar="URI",
        callback=_without_password,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster that this machine is a node of: auto or host:port; by default this machine alone."),
]
Dashboard = Annotated[
    str | None,
    typer.Option("--address", help="Ask a Ray cluster, by its dashboard such as http://head:8265.", metavar="URL"),
]
TimeBudget = Annotated[
    str | None, typer.Option(help="Put the sweep aside after this long, such as 2h or 1h30m.", metavar="TIME")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key, such as retrain.epochs=8.", metavar="A.B=C")
]
ModelOption = Annotated[
    str, typer.Option(help="Name, package.module:callable, or '{name: ..., key: value}'.", metavar="MODEL")
]
Data = Annotated[
    str | None,
    typer.Option(help="Name, package.module:callable, or '{name: ..., key: value}'.", metavar="DATA"),
]
