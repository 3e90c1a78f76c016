"""Verbs that read what sweeps have found."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from lrsearch.arguments import parse_numbers, shared_folder
from lrsearch.cli.completion import complete_sweep
from lrsearch.cli.options import Dashboard, FormatOption, Storage, Sweep
from lrsearch.cli.output import console, print_csv, print_json, say
from lrsearch.cli.progress import working
from lrsearch.sweep.store import DEFAULT_STORAGE

FrontFormat = Literal["table", "json", "csv"]
TableFormat = Literal["table", "json", "csv", "latex"]

PANEL = "Read sweeps"
verbs = typer.Typer()


@verbs.command(rich_help_panel=PANEL)
def status(
    name: Annotated[
        str | None, typer.Argument(help="Name of the sweep; by default all.", autocompletion=complete_sweep)
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    format: FormatOption = "table",
    address: Dashboard = None,
) -> None:
    """Show how far a sweep, or each sweep of the storage folder, has come."""
    if address is not None:
        _ask(address, ["status", *filter(None, [name]), "--storage", shared_folder(storage), "--format", format])
        return
    from lrsearch import results
    from lrsearch.screen import status_table

    where = "" if storage == DEFAULT_STORAGE else f" --storage {storage}"
    rows = [results.status(each, storage) for each in ([name] if name else results.all_names(storage))]
    if format == "json":
        print_json(rows[0] if name else rows)
    else:
        screen = console()
        screen.print(status_table(rows))
        for row in rows:
            left = row["trials"] - sum(row[state] for state in ("finished", "failed", "pruned"))
            if left and not row["running"]:
                say(screen, f"{left} trials of {row['name']} are left; next: lrsearch resume {row['name']}{where}")
        if not rows:
            say(screen, f"no sweeps in {storage}; next: lrsearch search SPACE.yaml{where}")


@verbs.command(rich_help_panel=PANEL)
def front(
    name: Sweep,
    objectives: Annotated[
        str | None, typer.Option(help="Metrics to take the front over, such as accuracy,params.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest drop of validation accuracy, in percentage points.")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    format: Annotated[FrontFormat, typer.Option(help="How to print.")] = "table",
    plot: Annotated[Path | None, typer.Option(help="Draw it to this .png, .svg or .pdf instead.")] = None,
    address: Dashboard = None,
) -> None:
    """Show the Pareto front of a sweep, the dense network first."""
    if address is not None:
        arguments = ["front", name, "--storage", shared_folder(storage), "--format", format]
        arguments += [f"--objectives={objectives}"] if objectives else []
        _ask(address, arguments + ([f"--max-drop={max_drop}"] if max_drop is not None else []))
        return
    from lrsearch.results import load_front, write_front_picture
    from lrsearch.screen import front_rows, front_table

    metrics = [metric.strip() for metric in objectives.split(",")] if objectives else None
    if plot is not None:
        with working(f"drawing {plot}"):
            write_front_picture(plot, name, storage, objectives=metrics, max_drop=max_drop)
        _print_written(plot, format)
        return
    results = load_front(name, storage, objectives=metrics, max_drop=max_drop)
    rows = front_rows(results.dense, results.front)
    if format == "json":
        print_json(rows)
    elif format == "csv":
        print_csv(rows)
    else:
        screen = console()
        screen.print(front_table(rows))
        if not results.front:
            wait = f"its {len(results.trials)} trials" if results.trials else "its trials"
            say(
                screen,
                f"no network of {name} is on the front yet: {wait} are running, failed or outside the constraints",
            )


@verbs.command(rich_help_panel=PANEL)
def table(
    name: Sweep,
    drops: Annotated[
        str, typer.Option(help="Losses of validation accuracy that are accepted, in percentage points.")
    ] = "0,0.5,1,2",
    storage: Storage = DEFAULT_STORAGE,
    format: Annotated[TableFormat, typer.Option(help="How to print.")] = "table",
    plot: Annotated[
        Path | None, typer.Option(help="Draw accuracy lost over what is removed to this .png, .svg or .pdf instead.")
    ] = None,
) -> None:
    """Show the smallest network of each method at each accepted loss of accuracy (a delta-table)."""
    from lrsearch import results
    from lrsearch.delta_table import delta_latex, delta_rows, delta_table

    if plot is not None:
        with working(f"drawing {plot}"):
            results.write_method_curves(plot, name, storage)
        _print_written(plot, format)
        return
    rows = delta_rows(results.load_front(name, storage).trials, parse_numbers("--drops", drops))
    if format == "json":
        print_json(rows)
    elif format == "csv":
        print_csv(rows)
    elif format == "latex":
        print(delta_latex(rows))
    else:
        console().print(delta_table(rows))


@verbs.command(rich_help_panel=PANEL)
def report(
    name: Sweep,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    storage: Storage = DEFAULT_STORAGE,
    format: FormatOption = "table",
) -> None:
    """Write one page that shows what a sweep found; it opens anywhere and prints."""
    from lrsearch.results import write_report

    with working(f"writing {out}"):
        answers = write_report(out, name, storage)
    if format == "json":
        print_json({"wrote": str(out), "answers": {what: trial.number for what, trial in answers.items()}})
    else:
        print(f"wrote {out}")


@verbs.command(rich_help_panel=PANEL)
def ui(
    name: Annotated[
        str | None,
        typer.Argument(help="Name of a sweep, to print the address of its front.", autocompletion=complete_sweep),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option(help="Port on localhost.", min=1, max=65535)] = 5000,
    format: FormatOption = "table",
) -> None:
    """Start the MLflow UI on the sweep's store, on localhost."""
    from lrsearch.results import tracking_location
    from lrsearch.tracking import front_address, ui_command

    uri, folder = tracking_location(name, storage)
    command = ui_command(uri, folder, port)
    address, page = f"http://127.0.0.1:{port}", front_address(uri, folder, name, port) if name else None
    if format == "json":
        print_json({"ui": address, "front": page})
    else:
        print(f"MLflow UI: {address}  (Ctrl+C to stop)")
        if page:
            print(f"the front: {page}")
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - fixed program, arguments without a shell


def _print_written(path: Path, format: str) -> None:
    if format == "json":
        print_json({"wrote": str(path)})
    else:
        print(f"wrote {path}")


def _ask(address: str, arguments: list[str]) -> None:
    from lrsearch.sweep.jobs import answer

    with working(f"asking {address}"):
        text = answer(address, arguments)
    print(text, end="")
