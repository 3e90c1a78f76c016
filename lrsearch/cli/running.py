"""Verbs that run a sweep, here or on a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrsearch.arguments import packed_path, parse_duration, parse_settings, shared_folder
from lrsearch.cli.options import Address, Format, FormatOption, Settings, Storage, Study, Sweep, TimeBudget, Tracking
from lrsearch.cli.output import console, print_json, quiet_stdout, say
from lrsearch.sweep.store import DEFAULT_STORAGE

if TYPE_CHECKING:
    from rich.console import Console

    from lrsearch.results import Results

PANEL = "Run sweeps"
verbs = typer.Typer()


@verbs.command(rich_help_panel=PANEL)
def search(
    space: Annotated[Path, typer.Argument(help="A search-space file.", metavar="SPACE.yaml")],
    name: Annotated[str | None, typer.Option(help="Name of the sweep; by default the file's.")] = None,
    trials: Annotated[int | None, typer.Option(help="Override search.trials.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    tracking_uri: Tracking = None,
    study: Study = None,
    address: Address = None,
    settings: Settings = None,
    time_budget: TimeBudget = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved space and a trial per method.")
    ] = False,
    format: FormatOption = "table",
) -> None:
    """Run a sweep; run again under the same name, it is continued."""
    from lrsearch.screen import SweepScreen

    overrides = parse_settings(settings)
    if dry_run:
        _print_dry_run(space, overrides | ({"search.trials": str(trials)} if trials is not None else {}), format)
        return
    from lrsearch import sweeps

    screen = console(stderr=format == "json")
    with quiet_stdout(format):
        results = sweeps.search(
            space,
            name,
            storage=storage,
            tracking_uri=tracking_uri,
            study=study,
            trials=trials,
            address=address,
            settings=overrides,
            time_budget=parse_duration(time_budget),
            observers=(SweepScreen(screen),),
        )
    _print_outcome(screen, results, storage, format)


@verbs.command(rich_help_panel=PANEL)
def resume(
    name: Sweep,
    storage: Storage = DEFAULT_STORAGE,
    tracking_uri: Tracking = None,
    address: Address = None,
    time_budget: TimeBudget = None,
    format: FormatOption = "table",
) -> None:
    """Continue a sweep that was interrupted or killed."""
    from lrsearch import sweeps
    from lrsearch.screen import SweepScreen

    screen = console(stderr=format == "json")
    with quiet_stdout(format):
        results = sweeps.resume(
            name,
            storage=storage,
            tracking_uri=tracking_uri,
            address=address,
            time_budget=parse_duration(time_budget),
            observers=(SweepScreen(screen),),
        )
    _print_outcome(screen, results, storage, format)


@verbs.command(rich_help_panel=PANEL)
def confirm(
    name: Sweep,
    seeds: Annotated[int, typer.Option(help="Repetitions of each network.")] = 3,
    storage: Storage = DEFAULT_STORAGE,
    tracking_uri: Tracking = None,
    address: Address = None,
    format: FormatOption = "table",
) -> None:
    """Repeat the front with other seeds and test it: mean and standard deviation."""
    from lrsearch import sweeps
    from lrsearch.screen import SweepScreen

    screen = console(stderr=format == "json")
    watcher = SweepScreen(screen)
    with quiet_stdout(format):
        results = sweeps.confirm(
            name,
            seeds,
            storage=storage,
            tracking_uri=tracking_uri,
            address=address,
            observers=(watcher,),
            watch=watcher.repetition_ended,
        )
    _print_front(screen, results, format)


@verbs.command(rich_help_panel=PANEL)
def submit(
    space: Annotated[Path, typer.Argument(help="A search-space file in or below this folder.", metavar="SPACE.yaml")],
    address: Annotated[str, typer.Option(help="The cluster's dashboard, such as http://head:8265.", metavar="URL")],
    storage: Storage,
    name: Annotated[str | None, typer.Option(help="Name of the sweep; by default the file's.")] = None,
    trials: Annotated[int | None, typer.Option(help="Override search.trials.")] = None,
    tracking_uri: Tracking = None,
    study: Study = None,
    settings: Settings = None,
    time_budget: TimeBudget = None,
    format: FormatOption = "table",
) -> None:
    """Run a sweep on a Ray cluster from outside it; it goes on when this command is interrupted."""
    from lrsearch.space import load_space
    from lrsearch.sweep.jobs import Job, answer

    load_space(space, parse_settings(settings))
    parse_duration(time_budget)
    options = {"name": name, "trials": trials, "tracking-uri": tracking_uri, "study": study}
    options |= {"time-budget": time_budget}
    arguments = ["search", packed_path(space), "--address", "auto", "--storage", shared_folder(storage)]
    arguments += [f"--{option}={value}" for option, value in options.items() if value is not None]
    arguments += [f"--set={setting}" for setting in settings or ()]
    job, sweep = Job(address, arguments, Path.cwd()), name or space.stem
    told = sys.stderr if format == "json" else sys.stdout
    where = f"--storage {storage} --address {address}"
    print(f"job {job.id} runs the sweep; from here: lrsearch status {sweep} {where}", file=told, flush=True)
    for text in job.output():
        print(text, end="", file=told, flush=True)
    if not job.succeeded():
        sys.exit(1)
    if format == "json":
        print(answer(address, ["front", sweep, "--storage", shared_folder(storage), "--format", "json"]), end="")


def _print_dry_run(path: Path, settings: dict[str, str], format: Format) -> None:
    import random

    import yaml

    from lrsearch.space import load_space

    space = load_space(path, settings)
    resolved = space.model_dump(mode="json")
    generator = random.Random(space.search.seed)  # noqa: S311 - an example, not a secret
    drawn = {
        method: space.draw(method, lambda _, distribution: distribution.at(generator.random()))
        for method in space.methods
    }
    if format == "json":
        print_json({"space": resolved, "trials": drawn})
        return
    print(yaml.safe_dump(resolved, sort_keys=False))
    print("# one trial of each method, drawn at random")
    print(yaml.safe_dump(drawn, sort_keys=False).rstrip())


def _print_outcome(screen: Console, results: Results, storage: str, format: Format) -> None:
    where = "" if storage == DEFAULT_STORAGE else f" --storage {storage}"
    ended = sum(trial.state != "running" for trial in results.trials)
    _print_front(screen, results, format)
    if ended < results.planned:
        say(screen, f"{ended} of {results.planned} trials have ended; next: lrsearch resume {results.name}{where}")
        sys.exit(130)
    say(screen, f"next: lrsearch ui {results.name}{where}")


def _print_front(screen: Console, results: Results, format: Format) -> None:
    from lrsearch.screen import front_rows, front_table

    rows = front_rows(results.dense, results.front)
    if format == "json":
        print_json(rows)
    else:
        screen.print(front_table(rows))
