"""One compression, in process: a network and a method in; a smaller network, its recipe and a report out."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from lrsearch.data import Splits
from lrsearch.errors import LrsearchError
from lrsearch.factorize import restructure
from lrsearch.measure.cost import Cost, count_cost
from lrsearch.measure.deployment import Deployment
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.latency import LatencyTable
from lrsearch.methods import load_method, method_names, parse_hyperparameters
from lrsearch.methods.base import AppliesRecipes, Compressed, Loader, Progress, Task
from lrsearch.methods.one_shot.apply import apply
from lrsearch.persistence import RECIPE, save_compressed
from lrsearch.recipe import Recipe
from lrsearch.shared_tensors import SharedTensors
from lrsearch.training import recalibrate_batch_norm

CALIBRATION_BATCH = 128
Watch: TypeAlias = Callable[[Progress], None]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Compression:
    """What ``compress`` returns.

    Attributes:
        model: the compressed network, in eval mode, on the device of the dense one.
        recipe: how each layer was factorized.
        report: ``method``, ``hyperparameters``, ``recalibrated``, ``params``, ``flops``, ``cr_p``, ``cr_f``,
            ``seconds``, and what the method adds.
    """

    model: nn.Module
    recipe: Recipe
    report: dict[str, Any]

    def save(self, folder: Path | str) -> None:
        """Write ``recipe.json`` and ``weights.safetensors``, which ``lrsearch.rebuild`` reads."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_compressed(self.model, self.recipe, Path(folder))


def compress(
    model: nn.Module,
    method: str = "alds",
    budget: Mapping[str, float] | None = None,
    data: Loader | Splits | None = None,
    *,
    example_input: Tensor | None = None,
    architecture: Mapping[str, Any] | None = None,
    seed: int = 0,
    deployment: Deployment | None = None,
    watch: Watch | None = None,
    **hyperparameters: Any,
) -> Compression:
    """Compress any network with one method, without retraining; ``model`` stays untouched.

    Args:
        model: the dense network; its Conv2d and Linear layers are candidates.
        method: a method's name, such as ``alds`` or ``tucker``.
        budget: fraction of the dense network to keep, ``{"params": 0.5}``, ``{"flops": 0.5}`` or both.
        data: a DataLoader of (inputs, targets), or ``lrsearch.data`` splits: what data-aware methods and the
            re-estimation of batch-norm statistics look at. Methods that train need splits.
        example_input: a batch of one input, for counting FLOPs; by default taken from ``data``.
        architecture: the model entry of a space file, kept in the recipe so that it rebuilds without ``model``.
        seed: seeds every random choice of the method.
        deployment: batch size, precision and layout in which methods that go by time measure it.
        watch: told of each step of the work.
        **hyperparameters: the method's own.

    Raises:
        LrsearchError: an unknown method or hyperparameter.
        BudgetUnreachableError: no choice of factorizations meets the budget.
    """
    started = time.monotonic()
    values = dict(hyperparameters) | ({"budget": dict(budget)} if budget is not None else {})
    task = make_task(
        model,
        data,
        example_input=example_input,
        architecture=dict(architecture) if architecture else None,
        seed=seed,
        latency=LatencyTable(deployment),
    )
    steps = compress_steps(model, method, values, task)
    compressed = drain(steps, watch)
    dense, small = count_cost(model, task.example_input), count_cost(compressed.model, task.example_input)
    parsed = parse_hyperparameters(method, values)
    report = {
        "method": method,
        "hyperparameters": parsed.model_dump(mode="json", exclude_none=True),
        "recalibrated": parsed.recalibrate and task.calibration is not None,
        **size_metrics(dense, small),
        **compressed.metrics,
        "seconds": time.monotonic() - started,
    }
    return Compression(compressed.model, compressed.recipe, report)


def apply_recipe(
    recipe: Recipe | Path | str,
    model: nn.Module,
    data: Loader | Splits | None = None,
    *,
    example_input: Tensor | None = None,
    architecture: Mapping[str, Any] | None = None,
    recalibrate: bool = True,
    watch: Watch | None = None,
) -> Compression:
    """Rebuild a recipe on new weights: the same ranks in every layer, decomposed from ``model``, without retraining.

    For the weights that the recipe was found on this gives what ``compress`` gave, except that a recipe knows neither
    what a method trained (``dlrt``) nor ``refine`` of ``tucker``.

    Args:
        recipe: a recipe, its file or its folder.
        model: a dense network of the recipe's structure; stays untouched.
        data: as of ``compress``; data-aware methods look at it again.
        example_input: a batch of one input, as of ``compress``.
        architecture: the model entry of a space file, for the new recipe; by default the recipe's.
        recalibrate: re-estimate batch-norm statistics where there is data.
        watch: as of ``compress``.

    Raises:
        LrsearchError: the recipe does not fit the network, or does not say enough to be applied to other weights.
    """
    started = time.monotonic()
    if not isinstance(recipe, Recipe):
        path = Path(recipe)
        recipe = Recipe.load(path / RECIPE if path.is_dir() else path)
    described = dict(architecture) if architecture is not None else recipe.architecture
    task = make_task(model, data, example_input=example_input, architecture=described)
    compressed = drain(_recipe_steps(recipe, model, task), watch)
    recalibrate = recalibrate and task.calibration is not None
    if recalibrate:
        recalibrate_batch_norm(compressed.model, task.calibration or (), task.device, reference=model)
    dense, small = count_cost(model, task.example_input), count_cost(compressed.model, task.example_input)
    report = {"method": recipe.method, "recalibrated": recalibrate, **size_metrics(dense, small)}
    return Compression(compressed.model.eval(), compressed.recipe, report | {"seconds": time.monotonic() - started})


def _recipe_steps(recipe: Recipe, model: nn.Module, task: Task) -> Generator[Progress, None, Compressed]:
    restructure(copy.deepcopy(model), recipe.layers)
    method = load_method(recipe.method) if recipe.method in method_names() else None
    try:
        if isinstance(method, AppliesRecipes):
            return (yield from method.apply_recipe(model, task, recipe, method.statistics(model, task)))
        for name, layer in recipe.layers.items():
            if layer.kind == "pruned":
                raise LrsearchError(
                    f"the recipe of {recipe.method} says how many channels layer {name!r} keeps but not which, so it "
                    "cannot be applied to other weights; compress them instead"
                )
        return (yield from apply(model, task, recipe.method, recipe.layers, {}))
    except ValueError as error:
        raise LrsearchError(f"the recipe does not fit the network: {error}") from error


def compress_steps(
    model: nn.Module,
    method: str,
    values: Mapping[str, Any],
    task: Task,
    statistics: Mapping[str, Tensor] | None = None,
    gate: DeviceGate | None = None,
) -> Generator[Progress, None, Compressed]:
    """Compress and re-estimate batch norm, step by step; each step holds ``gate`` so that no measurement overlaps."""
    chosen = load_method(method)
    hyperparameters = parse_hyperparameters(method, values)
    shared = statistics if statistics is not None else chosen.statistics(model, task)
    steps = chosen.compress(model, task, hyperparameters, shared)
    while True:
        try:
            with gate.work() if gate else nullcontext():
                progress = next(steps)
        except StopIteration as stop:
            compressed: Compressed = stop.value
            break
        yield progress
    if hyperparameters.recalibrate and task.calibration is not None:
        recalibrate_batch_norm(compressed.model, task.calibration, task.device, gate, reference=model)
    return replace(compressed, model=compressed.model.eval())


def make_task(
    model: nn.Module,
    data: Loader | Splits | None,
    *,
    example_input: Tensor | None = None,
    architecture: dict[str, Any] | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    latency: LatencyTable | None = None,
    shared: SharedTensors | None = None,
) -> Task:
    """The task of a network and its data, on the network's device."""
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    task = Task(
        device=device,
        generator=torch.Generator().manual_seed(seed),
        architecture=architecture,
        checkpoint=checkpoint,
        latency=latency or LatencyTable(),
        shared=shared or SharedTensors(),
    )
    if isinstance(data, Splits):
        task = replace(
            task,
            calibration=data.batches("calibration", CALIBRATION_BATCH),
            splits=data,
            example_input=data.example_input().to(device),
        )
    elif data is not None:
        task = replace(task, calibration=data, example_input=_first_input(data).to(device))
    if example_input is not None:
        task = replace(task, example_input=example_input.to(device))
    return task


def size_metrics(dense: Cost, small: Cost) -> dict[str, int | float | None]:
    """Parameters, FLOPs and their reductions CR-P and CR-F in percent; FLOPs None where no input is known."""
    return {
        "params": small.params,
        "flops": small.flops,
        "cr_p": 100 * (1 - small.params / dense.params),
        "cr_f": 100 * (1 - small.flops / dense.flops) if small.flops is not None and dense.flops else None,
    }


def drain(steps: Generator[Progress, None, Compressed], watch: Watch | None = None) -> Compressed:
    """Run a compression to its end and return what it returns; ``watch`` is told of each step."""
    while True:
        try:
            progress = next(steps)
            if watch is not None:
                watch(progress)
        except StopIteration as stop:
            compressed: Compressed = stop.value
            return compressed


def watched(items: Iterable[_Item], total: int, watch: Watch | None) -> Iterator[_Item]:
    """The items, of which there are ``total``; ``watch`` is told how many are done."""
    for done, item in enumerate(items):
        if watch is not None:
            watch(Progress(done, total))
        yield item


def _first_input(batches: Loader) -> Tensor:
    for inputs, _ in batches:
        return inputs[:1]
    raise LrsearchError("data holds no batch, expected at least one batch of (inputs, targets)")
