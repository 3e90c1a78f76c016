"""Verbs for single networks; no Ray, no tracking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lrsearch.arguments import parse_budget, parse_named, parse_shape, parse_values
from lrsearch.cli.completion import complete_method, complete_sweep
from lrsearch.cli.options import Data, Format, FormatOption, ModelOption, Settings, Storage
from lrsearch.cli.output import console, print_json, say
from lrsearch.cli.progress import progress_bar, working
from lrsearch.errors import LrsearchError
from lrsearch.sweep.store import DEFAULT_STORAGE

ExportFormat = Literal["torch", "exported-program", "onnx", "mlflow"]
SplitName = Literal["train", "calibration", "validation", "test"]
_NETWORK = typer.Argument(
    help="What `compress` or `apply` wrote; or of a sweep NAME:TRIAL, or NAME for the knee of its front.",
    metavar="NETWORK",
    autocompletion=complete_sweep,
)

PANEL = "Single networks"
verbs = typer.Typer()


@verbs.command(rich_help_panel=PANEL)
def compress(
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="Folder for recipe.json, weights.safetensors and report.json.")],
    method: Annotated[str, typer.Option(help="Compression method.", autocompletion=complete_method)] = "alds",
    budget: Annotated[
        str | None, typer.Option(help="What to keep, such as params=0.5 or flops=0.5.", metavar="PARAMS=F")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="File of trained weights.")] = None,
    data: Data = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="Seeds the method's random choices.")] = 0,
    format: FormatOption = "table",
) -> None:
    """Compress one network with one method; no Ray, no tracking."""
    network = parse_named(model) | ({"weights": str(weights)} if weights else {})
    with progress_bar() as stage:
        from lrsearch.workbench import compress_to

        report = compress_to(
            out,
            model=network,
            data=parse_named(data) if data else None,
            method=method,
            budget=parse_budget(budget),
            hyperparameters=parse_values(settings),
            seed=seed,
            watch=stage(method),
            watch_test=stage("test accuracy"),
        )
    _note_untrained(network)
    _print_written(report, out, format)


@verbs.command(rich_help_panel=PANEL)
def apply(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe.json or its folder; or of a sweep NAME:TRIAL, or NAME for the knee.",
            autocompletion=complete_sweep,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for recipe.json, weights.safetensors and report.json.")],
    model: Annotated[
        str | None, typer.Option(help="The dense network, as of `compress`; by default the recipe's.", metavar="MODEL")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="File of trained weights.")] = None,
    data: Data = None,
    storage: Storage = DEFAULT_STORAGE,
    format: FormatOption = "table",
) -> None:
    """Rebuild a recipe on other weights: the same ranks, decomposed anew."""
    from lrsearch.results import find_network

    with progress_bar() as stage:
        from lrsearch.workbench import apply_to

        report = apply_to(
            out,
            Path(recipe) if Path(recipe).is_file() else find_network(recipe, storage),
            model=parse_named(model) if model else None,
            data=parse_named(data) if data else None,
            weights=weights,
            watch=stage("recipe"),
            watch_test=stage("test accuracy"),
        )
    if weights is None:
        _note_untrained(parse_named(model) if model else {"name": "the recipe's network"})
    _print_written(report, out, format)


@verbs.command(rich_help_panel=PANEL)
def measure(
    target: Annotated[str | None, _NETWORK] = None,
    model: Annotated[str | None, typer.Option(help="A model instead of a folder.")] = None,
    shape: Annotated[str | None, typer.Option("--input", help="Input shape, such as 3,224,224.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.", min=1)] = 64,
    storage: Storage = DEFAULT_STORAGE,
    format: FormatOption = "table",
) -> None:
    """Measure parameters, FLOPs and throughput, the dense network beside the compressed one."""
    from lrsearch.results import find_network
    from lrsearch.screen import facts_table

    with progress_bar() as stage:
        from lrsearch.workbench import measure_network

        folder = find_network(target, storage) if target else None
        named = parse_named(model) if model else None
        figures = measure_network(folder, named, parse_shape(shape), batch_size, stage("throughput"))
    if format == "json":
        print_json(figures)
        return
    console().print(
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


@verbs.command(rich_help_panel=PANEL)
def evaluate(
    target: Annotated[str, _NETWORK],
    data: Annotated[str, typer.Option(help="Name, package.module:callable, or '{name: ..., key: value}'.")],
    split: Annotated[SplitName, typer.Option(help="Which part of the data.")] = "test",
    storage: Storage = DEFAULT_STORAGE,
    format: FormatOption = "table",
) -> None:
    """Evaluate the accuracy of a compressed network."""
    from lrsearch.results import find_network

    with progress_bar() as stage:
        from lrsearch.workbench import evaluate_folder

        scores = evaluate_folder(find_network(target, storage), parse_named(data), split, stage(f"{split} split"))
    if format == "json":
        print_json({**scores, "split": split})
    else:
        for name, value in scores.items():
            print(f"{name.replace('_', ' ')} on the {split} split: {value:.2f} %")


@verbs.command(rich_help_panel=PANEL)
def export(
    target: Annotated[str, _NETWORK],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder (torch, mlflow) or file to write. Format mlflow without it logs models of the trials' runs: "
            "NAME those of the whole front."
        ),
    ] = None,
    format: Annotated[ExportFormat, typer.Option(help="How to write it.")] = "torch",
    register: Annotated[
        str | None,
        typer.Option(help="With format mlflow: register the front's knee as this model, alias knee.", metavar="MODEL"),
    ] = None,
    shape: Annotated[str | None, typer.Option("--input", help="Input shape, such as 3,224,224.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, --format being the network's.")] = False,
) -> None:
    """Write a compressed network so that it loads without lrsearch."""
    from lrsearch import results

    if format == "mlflow" and out is None:
        with progress_bar() as stage:
            models = results.log_models(target, register, storage, stage("models"))
        registered = f"models:/{register}@knee" if register is not None else None
        if as_json:
            print_json({"models": models, "registered": registered})
            return
        for number, uri in models.items():
            print(f"trial {number}: {uri}")
        if registered is not None:
            print(f"registered: {registered}")
        return
    if out is None or register is not None:
        raise LrsearchError("expected --out, or --format mlflow with or without --register")
    with working(f"writing {out}"):
        written = _export(results.find_network(target, storage), out, format, shape)
    if as_json:
        print_json({"wrote": str(out), "format": format, **written})
    else:
        how = f"equal to {written['difference']:.0e}"
        print(f"wrote {out}: {written['network']} with batch norm folded, outputs {how}")


def _export(folder: Path, out: Path, format: ExportFormat, shape: str | None) -> dict[str, Any]:
    """Which network was written, and by how much its outputs differ."""
    from lrsearch.screen import near

    if format == "mlflow":
        from lrsearch.tracking.models import save_model

        difference = save_model(folder, out)
    else:
        from lrsearch.workbench import export_folder

        difference = export_folder(folder, out, format, parse_shape(shape))
    return {"network": near(folder), "difference": difference}


def _note_untrained(model: Mapping[str, Any]) -> None:
    """Own code may load weights by itself, named networks begin with random ones."""
    if "weights" not in model and ":" not in model["name"]:
        say(console(stderr=True), f"note: {model['name']} has random weights; give trained ones as --weights FILE")


def _print_written(report: dict[str, Any], out: Path, format: Format) -> None:
    """What ``compress`` and ``apply`` have to say."""
    from lrsearch.screen import facts_table

    if format == "json":
        print_json(report)
        return
    screen = console()
    screen.print(
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
    say(screen, f"wrote {out}; next: lrsearch measure {out}")
