"""The command line: one function per verb, no logic of its own."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lrsearch.arguments import (
    packed_path,
    parse_budget,
    parse_duration,
    parse_named,
    parse_numbers,
    parse_settings,
    parse_shape,
    parse_values,
    shared_folder,
    without_password,
)
from lrsearch.errors import LrsearchError, hide_passwords
from lrsearch.sweep.store import DEFAULT_STORAGE

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="Search for the best low-rank compression of a trained neural network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


Format = Literal["table", "json"]
ExportFormat = Literal["torch", "exported-program", "onnx"]
FrontFormat = Literal["table", "json", "csv"]
TableFormat = Literal["table", "json", "csv", "latex"]
SplitName = Literal["train", "calibration", "validation", "test"]
Storage = Annotated[str, typer.Option(help="Folder that holds the sweeps.", metavar="URI")]
Tracking = Annotated[
    str | None,
    typer.Option(
        help="MLflow server or database, without a password; by default mlflow.db in the storage folder.",
        metavar="URI",
        callback=without_password,
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


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    if debug:
        os.environ["LRSEARCH_DEBUG"] = "1"


@app.command()
def search(
    space: Annotated[Path, typer.Argument(help="A search-space file.", metavar="SPACE.yaml")],
    name: Annotated[str | None, typer.Option(help="Name of the sweep; by default the file's.")] = None,
    trials: Annotated[int | None, typer.Option(help="Override search.trials.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    tracking_uri: Tracking = None,
    study: Annotated[
        str | None,
        typer.Option(help="Database for the Optuna study of a new sweep; by default a journal file.", metavar="URL"),
    ] = None,
    address: Address = None,
    settings: Settings = None,
    time_budget: TimeBudget = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved space and a trial per method.")
    ] = False,
) -> None:
    """Run a sweep; run again under the same name, it is continued."""
    from lrsearch.screen import SweepScreen

    overrides = parse_settings(settings)
    if dry_run:
        _print_dry_run(space, overrides | ({"search.trials": str(trials)} if trials is not None else {}))
        return
    from lrsearch import sweeps

    console = _console()
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
        observers=(SweepScreen(console),),
    )
    _print_outcome(console, results, storage)


@app.command()
def resume(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    storage: Storage = DEFAULT_STORAGE,
    tracking_uri: Tracking = None,
    address: Address = None,
    time_budget: TimeBudget = None,
) -> None:
    """Continue a sweep that was interrupted or killed."""
    from lrsearch import sweeps
    from lrsearch.screen import SweepScreen

    console = _console()
    results = sweeps.resume(
        name,
        storage=storage,
        tracking_uri=tracking_uri,
        address=address,
        time_budget=parse_duration(time_budget),
        observers=(SweepScreen(console),),
    )
    _print_outcome(console, results, storage)


@app.command()
def confirm(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    seeds: Annotated[int, typer.Option(help="Repetitions of each network.")] = 3,
    storage: Storage = DEFAULT_STORAGE,
    tracking_uri: Tracking = None,
    address: Address = None,
) -> None:
    """Repeat the front with other seeds and test it: mean and standard deviation."""
    from lrsearch import sweeps
    from lrsearch.screen import SweepScreen, front_rows, front_table

    console = _console()
    results = sweeps.confirm(
        name, seeds, storage=storage, tracking_uri=tracking_uri, address=address, observers=(SweepScreen(console),)
    )
    console.print(front_table(front_rows(results.dense, results.front)))


@app.command()
def submit(
    space: Annotated[Path, typer.Argument(help="A search-space file in or below this folder.", metavar="SPACE.yaml")],
    address: Annotated[str, typer.Option(help="The cluster's dashboard, such as http://head:8265.", metavar="URL")],
    storage: Annotated[str, typer.Option(help="Folder that every node of the cluster reaches.", metavar="URI")],
    name: Annotated[str | None, typer.Option(help="Name of the sweep; by default the file's.")] = None,
    trials: Annotated[int | None, typer.Option(help="Override search.trials.")] = None,
    tracking_uri: Tracking = None,
    settings: Settings = None,
    time_budget: TimeBudget = None,
) -> None:
    """Run a sweep on a Ray cluster from outside it; it goes on when this command is interrupted."""
    from lrsearch.space import load_space
    from lrsearch.sweep.jobs import Job

    load_space(space, parse_settings(settings))
    parse_duration(time_budget)
    options = {"name": name, "trials": trials, "tracking-uri": tracking_uri, "time-budget": time_budget}
    arguments = ["search", packed_path(space), "--address", "auto", "--storage", shared_folder(storage)]
    arguments += [f"--{option}={value}" for option, value in options.items() if value is not None]
    arguments += [f"--set={setting}" for setting in settings or ()]
    job = Job(address, arguments, Path.cwd())
    where = f"--storage {storage} --address {address}"
    print(f"job {job.id} runs the sweep; from here: lrsearch status {name or space.stem} {where}", flush=True)
    for text in job.output():
        print(text, end="", flush=True)
    if not job.succeeded():
        sys.exit(1)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Name of the sweep; by default all.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    format: Annotated[Format, typer.Option(help="How to print.")] = "table",
    address: Dashboard = None,
) -> None:
    """Show how far a sweep, or each sweep of the storage folder, has come."""
    if address is not None:
        _ask(address, ["status", *filter(None, [name]), "--storage", shared_folder(storage), "--format", format])
        return
    from lrsearch import sweeps
    from lrsearch.screen import status_table

    rows = [sweeps.status(each, storage) for each in ([name] if name else sweeps.all_names(storage))]
    if format == "json":
        _print_json(rows[0] if name else rows)
    else:
        _console().print(status_table(rows))


@app.command()
def front(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    objectives: Annotated[
        str | None, typer.Option(help="Metrics to take the front over, such as accuracy,params.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest drop of validation accuracy, in percentage points.")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    format: Annotated[FrontFormat, typer.Option(help="How to print.")] = "table",
    address: Dashboard = None,
) -> None:
    """Show the Pareto front of a sweep, the dense network first."""
    if address is not None:
        arguments = ["front", name, "--storage", shared_folder(storage), "--format", format]
        arguments += [f"--objectives={objectives}"] if objectives else []
        _ask(address, arguments + ([f"--max-drop={max_drop}"] if max_drop is not None else []))
        return
    from lrsearch import sweeps
    from lrsearch.screen import front_rows, front_table

    metrics = [metric.strip() for metric in objectives.split(",")] if objectives else None
    results = sweeps.load_front(name, storage, objectives=metrics, max_drop=max_drop)
    rows = front_rows(results.dense, results.front)
    if format == "json":
        _print_json(rows)
    elif format == "csv":
        _print_csv(rows)
    else:
        _console().print(front_table(rows))


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    drops: Annotated[
        str, typer.Option(help="Losses of validation accuracy that are accepted, in percentage points.")
    ] = "0,0.5,1,2",
    storage: Storage = DEFAULT_STORAGE,
    format: Annotated[TableFormat, typer.Option(help="How to print.")] = "table",
) -> None:
    """Show the smallest network of each method at each accepted loss of accuracy (a delta-table)."""
    from lrsearch import sweeps
    from lrsearch.delta_table import delta_latex, delta_rows, delta_table

    rows = delta_rows(sweeps.load_front(name, storage).trials, parse_numbers("--drops", drops))
    if format == "json":
        _print_json(rows)
    elif format == "csv":
        _print_csv(rows)
    elif format == "latex":
        print(delta_latex(rows))
    else:
        _console().print(delta_table(rows))


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write one page that shows what a sweep found; it opens anywhere and prints."""
    from lrsearch import sweeps

    sweeps.write_report(out, name, storage)
    print(f"wrote {out}")


@app.command()
def ui(
    name: Annotated[str | None, typer.Argument(help="Name of a sweep, to print the address of its front.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option(help="Port on localhost.")] = 5000,
) -> None:
    """Start the MLflow UI on the sweep's store, on localhost."""
    from lrsearch import sweeps
    from lrsearch.tracking import front_address, ui_command

    uri, folder = sweeps.tracking_location(name, storage)
    command = ui_command(uri, folder, port)
    print(f"MLflow UI: http://127.0.0.1:{port}  (Ctrl+C to stop)")
    if name:
        print(f"the front: {front_address(uri, folder, name, port)}")
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - fixed program, arguments without a shell


@app.command()
def compress(
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="Folder for recipe.json, weights.safetensors and report.json.")],
    method: Annotated[str, typer.Option(help="Compression method.")] = "alds",
    budget: Annotated[
        str | None, typer.Option(help="What to keep, such as params=0.5 or flops=0.5.", metavar="PARAMS=F")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="File of trained weights.")] = None,
    data: Data = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="Seeds the method's random choices.")] = 0,
) -> None:
    """Compress one network with one method; no Ray, no tracking."""
    from lrsearch.screen import facts_table
    from lrsearch.workbench import compress_to

    report = compress_to(
        out,
        model=parse_named(model) | ({"weights": str(weights)} if weights else {}),
        data=parse_named(data) if data else None,
        method=method,
        budget=parse_budget(budget),
        hyperparameters=parse_values(settings),
        seed=seed,
    )
    console = _console()
    console.print(
        facts_table(
            {
                "parameters": (report["dense_params"], report["params"]),
                "FLOPs": (report["dense_flops"], report["flops"]),
                "CR-P %": (None, report["cr_p"]),
                "CR-F %": (None, report["cr_f"]),
                "test accuracy %": (report.get("dense_accuracy"), report.get("accuracy")),
            }
        )
    )
    console.print(f"wrote {out}; next: lrsearch measure {out}", highlight=False, soft_wrap=True)


@app.command()
def measure(
    folder: Annotated[Path | None, typer.Argument(help="What `compress` or a trial wrote.", metavar="DIR")] = None,
    model: Annotated[str | None, typer.Option(help="A model instead of a folder.")] = None,
    shape: Annotated[str | None, typer.Option("--input", help="Input shape, such as 3,224,224.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 64,
    format: Annotated[Format, typer.Option(help="How to print.")] = "table",
) -> None:
    """Measure parameters, FLOPs and throughput, the dense network beside the compressed one."""
    from lrsearch.screen import facts_table
    from lrsearch.workbench import measure_network

    figures = measure_network(folder, parse_named(model) if model else None, parse_shape(shape), batch_size)
    if format == "json":
        _print_json(figures)
        return
    _console().print(
        facts_table(
            {
                "parameters": (figures["dense_params"], figures["params"]),
                "FLOPs": (figures["dense_flops"], figures["flops"]),
                "images/s": (figures["dense_throughput"], figures["throughput"]),
                "CR-P %": (None, figures["cr_p"]),
                "CR-F %": (None, figures["cr_f"]),
                "speed-up": (None, figures["speedup"]),
            }
        )
    )


@app.command()
def export(
    target: Annotated[
        str,
        typer.Argument(help="NAME:TRIAL, NAME for the front's knee, or a folder.", metavar="NETWORK"),
    ],
    out: Annotated[Path, typer.Option(help="Folder (torch) or file to write.")],
    format: Annotated[ExportFormat, typer.Option(help="How to write it.")] = "torch",
    shape: Annotated[str | None, typer.Option("--input", help="Input shape, such as 3,224,224.")] = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write a compressed network so that it loads without lrsearch."""
    from lrsearch import sweeps
    from lrsearch.workbench import export_folder

    folder = sweeps.find_network(target, storage)
    difference = export_folder(folder, out, format, parse_shape(shape))
    print(f"wrote {out}: {folder} with batch norm folded, outputs equal to {difference:.0e}")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="What `compress` or a trial wrote.", metavar="DIR")],
    data: Annotated[str, typer.Option(help="Name, package.module:callable, or '{name: ..., key: value}'.")],
    split: Annotated[SplitName, typer.Option(help="Which part of the data.")] = "test",
    format: Annotated[Format, typer.Option(help="How to print.")] = "table",
) -> None:
    """Evaluate the accuracy of a compressed network."""
    from lrsearch.workbench import evaluate_folder

    accuracy = evaluate_folder(folder, parse_named(data), split)
    if format == "json":
        _print_json({"accuracy": accuracy, "split": split})
    else:
        print(f"accuracy on the {split} split: {accuracy:.2f} %")


def main() -> None:
    """Entry point: faults become one sentence on stderr and exit status 1."""
    try:
        app()
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


def _ask(address: str, arguments: list[str]) -> None:
    from lrsearch.sweep.jobs import answer

    print(answer(address, arguments), end="")


def _console() -> Console:
    from rich.console import Console

    return Console()


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


def _print_csv(rows: list[dict[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]) if rows else ["number"])
    writer.writeheader()
    for row in rows:
        writer.writerow({key: json.dumps(value) if isinstance(value, dict) else value for key, value in row.items()})


def _print_dry_run(path: Path, settings: dict[str, str]) -> None:
    import random

    import yaml

    from lrsearch.space import load_space
    from lrsearch.sweep.sampler import at_quantile

    space = load_space(path, settings)
    print(yaml.safe_dump(space.model_dump(mode="json"), sort_keys=False).rstrip())
    print("\n# one trial of each method, drawn at random")
    generator = random.Random(space.search.seed)  # noqa: S311 - an example, not a secret
    for method in space.methods:
        drawn = space.draw(method, lambda _, distribution: at_quantile(distribution, generator.random()))
        print(yaml.safe_dump({method: drawn}, sort_keys=False).rstrip())


def _print_outcome(console: Console, results: Any, storage: str) -> None:
    from lrsearch.screen import front_rows, front_table

    where = "" if storage == DEFAULT_STORAGE else f" --storage {storage}"
    ended = sum(trial.state != "running" for trial in results.trials)
    console.print(front_table(front_rows(results.dense, results.front)))
    if ended < results.planned:
        console.print(
            f"{ended} of {results.planned} trials have ended; continue with: lrsearch resume {results.name}{where}",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(130)
    console.print(f"next: lrsearch ui {results.name}{where}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
