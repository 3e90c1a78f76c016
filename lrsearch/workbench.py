"""Single networks on a workbench: compress one to a folder, measure it, evaluate it. No Ray, no tracking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.compression import Compression, Watch, apply_recipe, compress, size_metrics, watched
from lrsearch.data import SplitName, Splits, load_data
from lrsearch.dense import EVALUATION_BATCH, Workplace, compare_throughput
from lrsearch.errors import LrsearchError
from lrsearch.export import ExportFormat, export_network
from lrsearch.factorize import fitting
from lrsearch.files import read_json, writing
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.cost import count_cost
from lrsearch.measure.deployment import Deployment
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.modes import evaluation_mode
from lrsearch.methods.base import Progress
from lrsearch.models import build_model, input_shape
from lrsearch.outcome import RESULT
from lrsearch.persistence import RECIPE, rebuild
from lrsearch.recipe import Recipe

REPORT = "report.json"
DEVICE = torch.device("cpu")


def compress_to(
    folder: Path,
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any] | None,
    method: str,
    budget: Mapping[str, float] | None,
    hyperparameters: Mapping[str, Any],
    seed: int,
    watch: Watch | None = None,
    watch_test: Watch | None = None,
) -> dict[str, Any]:
    """Compress a named model and write ``recipe.json``, ``weights.safetensors`` and ``report.json``.

    With data, the report also holds the test accuracy of both networks. ``watch`` is told of each step of the
    compression, ``watch_test`` of each batch of the test.

    Raises:
        LrsearchError: anything named does not exist or does not fit, or the folder cannot be written.
    """
    bench = _Bench(model, data)
    result = compress(
        bench.dense,
        method,
        budget,
        bench.splits,
        example_input=bench.example,
        architecture=bench.architecture,
        seed=seed,
        watch=watch,
        **hyperparameters,
    )
    return bench.keep(result, folder, {"seed": seed}, watch_test)


def apply_to(
    folder: Path,
    recipe: Path,
    *,
    model: Mapping[str, Any] | None,
    data: Mapping[str, Any] | None,
    weights: Path | None,
    watch: Watch | None = None,
    watch_test: Watch | None = None,
) -> dict[str, Any]:
    """Rebuild a recipe on new weights and write what ``compress_to`` writes.

    Args:
        folder: to write to.
        recipe: a folder or file.
        model: the dense network; None for the one that the recipe names.
        data: re-estimates batch norm, and is what the report's test accuracies are of.
        weights: a file of the dense network's weights.
        watch: told of each step of the work.
        watch_test: told of each batch of the test.

    Raises:
        LrsearchError: anything named does not exist or does not fit, or the folder cannot be written.
    """
    path = recipe / RECIPE if recipe.is_dir() else recipe
    wanted = Recipe.load(path)
    named = model or wanted.architecture
    if named is None:
        raise LrsearchError(f"recipe {path} names no architecture, expected --model")
    bench = _Bench({**named, "weights": str(weights)} if weights else named, data, _reported_shape(path.parent))
    result = apply_recipe(
        wanted,
        bench.dense,
        bench.splits,
        example_input=bench.example,
        architecture=bench.architecture,
        watch=watch,
    )
    return bench.keep(result, folder, {}, watch_test)


class _Bench:
    """A dense network, and the data to look at if there is any."""

    def __init__(
        self, model: Mapping[str, Any], data: Mapping[str, Any] | None, shape: tuple[int, ...] | None = None
    ) -> None:
        self.dense = build_model(model)
        self.architecture = {key: value for key, value in model.items() if key != "weights"}
        self.splits = load_data(data) if data else None
        self.example = self.splits.example_input() if self.splits else _example(model, shape)

    def keep(self, result: Compression, folder: Path, more: Mapping[str, Any], watch: Watch | None) -> dict[str, Any]:
        """Write a compression and its report, with the test accuracy of both networks where there is data."""
        cost = count_cost(self.dense, self.example)
        report = {**result.report, "dense_params": cost.params, "dense_flops": cost.flops, **more}
        report["input_shape"] = list(self.example.shape[1:]) if self.example is not None else None
        if self.splits is not None:
            report["dense_accuracy"] = _scores(self.dense, self.splits, "test", watch)["accuracy"]
            report |= _scores(result.model, self.splits, "test", watch)
            report["accuracy_drop"] = report["dense_accuracy"] - report["accuracy"]
        with writing("--out", folder):
            result.save(folder)
            (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
        return report


def measure_network(
    folder: Path | None,
    model: Mapping[str, Any] | None,
    input_shape: tuple[int, ...] | None,
    batch_size: int,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Parameters, FLOPs and throughput of a compressed network beside its dense one, or of a model alone.

    ``watch`` is told of each hundredth of the measurement.

    Raises:
        LrsearchError: neither or both of folder and model are given, or no input shape is known.
    """
    if (folder is None) == (model is None):
        raise LrsearchError("expected either a folder or --model, so that it is clear what to measure")
    if folder is not None:
        network, architecture = rebuild(folder), Recipe.load(folder / RECIPE).architecture or {}
        input_shape = input_shape or _reported_shape(folder)
    else:
        architecture = dict(model or {})
        network = build_model(architecture)
    dense = build_model(architecture)
    example = _example(architecture, input_shape)
    if example is None:
        raise LrsearchError(
            f"the input shape of {architecture['name']!r} is not known, expected --input such as 3,224,224"
        )
    _check(network, example)
    small, full = count_cost(network, example), count_cost(dense, example)
    workplace = Workplace(deployment=Deployment(batch_size=batch_size))

    def tell(share: float) -> None:
        if watch is not None:
            watch(Progress(int(100 * share), 100))

    speed = compare_throughput(network, dense, example, workplace, DeviceGate(DEVICE), watch=tell)
    return {
        **size_metrics(full, small),
        "throughput": speed.images_per_second,
        "speedup": speed.speedup,
        "speedup_spread": speed.spread,
        "dense_params": full.params,
        "dense_flops": full.flops,
        "dense_throughput": speed.dense_images_per_second,
        "batch_size": batch_size,
    }


def evaluate_folder(
    folder: Path, data: Mapping[str, Any], split: SplitName, watch: Watch | None = None
) -> dict[str, float]:
    """Accuracy in percent of the compressed network in a folder, and what else the data's score tells.

    ``watch`` is told of each batch.

    Raises:
        LrsearchError: the folder, the data or the split cannot be used.
    """
    network, splits = rebuild(folder), load_data(data)
    _check(network, splits.example_input())
    return _scores(network, splits, split, watch)


def _scores(model: nn.Module, splits: Splits, split: SplitName, watch: Watch | None) -> dict[str, float]:
    batches = splits.batches(split, EVALUATION_BATCH)
    return evaluate(model, watched(batches, len(batches), watch), DEVICE, DeviceGate(DEVICE), splits.score)


def export_folder(folder: Path, out: Path, format: ExportFormat, input_shape: tuple[int, ...] | None = None) -> float:
    """Write the compressed network in a folder in a form that loads without lrsearch; see ``export_network``.

    Raises:
        LrsearchError: the folder cannot be read, no input shape is known, or the format cannot hold the network.
    """
    recipe = Recipe.load(folder / RECIPE)
    architecture = recipe.architecture or {}
    name = architecture.get("name", "A network")
    example = _example(architecture, input_shape or _reported_shape(folder))
    if example is None:
        raise LrsearchError(f"the input shape of {name!r} is not known, expected --input such as 3,224,224")
    network = rebuild(folder)
    _check(network, example)
    with writing("--out", out):
        return export_network(network, example, out, format, f"{name} compressed by {recipe.method}")


def _check(model: nn.Module, example: Tensor) -> None:
    """See that a network takes an input at all, before it is said in the words of one of its layers."""
    with fitting(example), evaluation_mode(model), torch.inference_mode():
        model(example)


def _reported_shape(folder: Path) -> tuple[int, ...] | None:
    """What `compress` or a trial noted of its inputs."""
    for name in (REPORT, RESULT):
        report = read_json(folder / name, "give --input instead") or {}
        if shape := report.get("input_shape"):
            return tuple(shape)
    return None


def _example(model: Mapping[str, Any], shape: tuple[int, ...] | None) -> Tensor | None:
    shape = shape or input_shape(model["name"])
    return None if shape is None else torch.zeros(1, *shape)
