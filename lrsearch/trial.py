"""One trial, from the dense network to a measured result: dense -> compress -> measure -> retrain."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lrsearch.compression import compress_steps, make_task, size_metrics
from lrsearch.data import Splits, load_data
from lrsearch.dense import EVALUATION_BATCH, Workplace, compare_throughput, load_dense_model, load_dense_record
from lrsearch.files import only_process, read_json, replacing, write_json
from lrsearch.front import broken_bound
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.cost import Cost, count_cost
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.latency import LatencyTable
from lrsearch.methods import load_method, parse_hyperparameters
from lrsearch.methods.base import Compressed, Progress, Retrains, Task
from lrsearch.outcome import pruned_result, write_result
from lrsearch.persistence import load_compression, rebuild, save_compressed, save_compression
from lrsearch.record import TESTED, Report
from lrsearch.training import TrainingConfig, read_history, train
from lrsearch.version import __version__

CHECKPOINT = "checkpoint.pt"
COMPRESSING = "compressing.pt"
MEASURED = "measured.json"


@dataclass(frozen=True)
class TrialSpec:
    """All that a trial depends on, as plain data; paths are of folders that the worker can reach."""

    number: int
    method: str
    hyperparameters: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    retrain: dict[str, Any]
    seed: int
    workplace: Workplace
    dense_folder: str
    cache_folder: str
    constraints: dict[str, float] = field(default_factory=dict)
    """Bounds of the space: a network that breaks one whatever its training is not trained."""


def run_trial(spec: TrialSpec, folder: Path) -> Generator[Report, None, None]:
    """Run one trial, yielding a report after every unit of work; the last has stage ``done``.

    ``folder`` receives ``recipe.json`` and ``weights.safetensors`` and, last of all, ``result.json``. Killed at any
    moment and run again on the same folder, a trial goes on from its last finished stage or epoch.

    Raises:
        BudgetUnreachableError: the method cannot meet its budget on this network.
        TrialFailedError: training diverged.
        LrsearchError: a checkpoint is damaged, or the data or model cannot be loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with only_process(folder / "lock"):  # a worker orphaned by a killed driver may still be finishing
        torch.set_num_threads(spec.workplace.threads)
        started = time.monotonic()
        device, gate = torch.device(spec.workplace.device), DeviceGate(spec.workplace.device)
        splits = _splits(json.dumps(spec.data))
        dense = load_dense_model(spec.model, Path(spec.dense_folder), device)
        compressed = yield from _compressed(spec, folder, dense, splits, gate)
        compress_seconds = time.monotonic() - started
        metrics = _measured(spec, folder, compressed, dense, splits, gate, compress_seconds)
        yield Report("measure", 1, 1, metrics)
        reason = _infeasible(spec, metrics)
        if reason is None:
            yield from _retrain(spec, folder, compressed, dense, splits, gate)
        result = _result(spec, folder, metrics, splits) if reason is None else pruned_result(reason, metrics)
        write_result(folder, result)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    yield Report("done", 1, 1, result["metrics"])


def evaluate_test(spec: TrialSpec, folder: Path) -> float:
    """Accuracy in percent of a finished trial on the test split, evaluated once and then remembered."""
    known = read_json(folder / TESTED, "delete it to evaluate again")
    if known is not None:
        return float(known["test_accuracy"])
    torch.set_num_threads(spec.workplace.threads)
    device = torch.device(spec.workplace.device)
    model = rebuild(folder).to(device)
    batches = _splits(json.dumps(spec.data)).batches("test", EVALUATION_BATCH)
    accuracy = evaluate(model, batches, device, DeviceGate(spec.workplace.device))
    write_json(folder / TESTED, {"test_accuracy": accuracy})
    return accuracy


def _compressed(
    spec: TrialSpec, folder: Path, dense: nn.Module, splits: Splits, gate: DeviceGate
) -> Generator[Report, None, Compressed]:
    """The compressed network: from the folder if an earlier run got that far, else made now."""
    finished = load_compression(folder)
    if finished is not None:
        return replace(finished, model=finished.model.to(spec.workplace.device))
    architecture = {key: value for key, value in spec.model.items() if key != "weights"}
    task = make_task(
        dense,
        splits,
        architecture=architecture,
        seed=spec.seed,
        checkpoint=folder / COMPRESSING,
        latency=LatencyTable(spec.workplace.deployment, gate, Path(spec.cache_folder)),
    )
    statistics = _statistics(spec, dense, task, gate)
    steps = compress_steps(dense, spec.method, spec.hyperparameters, task, statistics, gate)
    compressed = yield from _reports(steps)
    save_compression(compressed, folder)
    (folder / COMPRESSING).unlink(missing_ok=True)
    return compressed


def _reports(steps: Generator[Progress, None, Compressed]) -> Generator[Report, None, Compressed]:
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            compressed: Compressed = stop.value
            return compressed
        yield Report("compress", progress.done, progress.total)


def _statistics(spec: TrialSpec, dense: nn.Module, task: Task, gate: DeviceGate) -> dict[str, Tensor]:
    """What the method's trials share, computed by the first of them on shared storage and read by the others.

    Another version of lrsearch may share something else: it computes its own.
    """
    path = Path(spec.cache_folder) / f"{Path(spec.dense_folder).name}-{spec.method}-{__version__}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_process(path.with_suffix(".lock")):
        if not path.exists():
            with gate.work():
                statistics = load_method(spec.method).statistics(dense, task)
            with replacing(path) as temporary:
                save_file({key: value.contiguous().cpu() for key, value in statistics.items()}, temporary)
        return load_file(path, device=spec.workplace.device)


def _measured(
    spec: TrialSpec,
    folder: Path,
    compressed: Compressed,
    dense: nn.Module,
    splits: Splits,
    gate: DeviceGate,
    compress_seconds: float,
) -> dict[str, float]:
    """What is known before retraining: sizes, speed beside the dense network, accuracy without retraining."""
    known = read_json(folder / MEASURED, "delete it to measure again")
    if known is not None:
        return known
    started = time.monotonic()
    record = load_dense_record(Path(spec.dense_folder))
    example = splits.example_input().to(spec.workplace.device)
    model = compressed.model
    sizes = size_metrics(Cost(record.params, record.flops), count_cost(model, example))
    metrics: dict[str, float] = {
        **compressed.metrics,
        **{key: value for key, value in sizes.items() if value is not None},
    }
    if _infeasible(spec, metrics) is None:
        throughput = compare_throughput(model, dense, example, spec.workplace, gate)
        validation = splits.batches("validation", EVALUATION_BATCH)
        accuracy = evaluate(model, validation, torch.device(spec.workplace.device), gate)
        metrics |= {
            "speedup": throughput.speedup,
            "speedup_spread": throughput.spread,
            "throughput": throughput.speedup * record.throughput,
            "accuracy": accuracy,
            "accuracy_drop": record.accuracy - accuracy,
            "compressed_accuracy": accuracy,
        }
        if "predicted_speedup" in metrics:
            metrics["predicted_speedup_error"] = 100 * (metrics["predicted_speedup"] / throughput.speedup - 1)
    metrics["seconds"] = compress_seconds + time.monotonic() - started
    write_json(folder / MEASURED, metrics)
    return metrics


def _infeasible(spec: TrialSpec, metrics: dict[str, float]) -> str | None:
    """Which bound a network breaks that no training can mend, as a sentence."""
    fixed = {name: bound for name, bound in spec.constraints.items() if name not in ("accuracy", "accuracy_drop")}
    return broken_bound(metrics, fixed)


def _retrain(
    spec: TrialSpec, folder: Path, compressed: Compressed, dense: nn.Module, splits: Splits, gate: DeviceGate
) -> Iterator[Report]:
    config = TrainingConfig.model_validate(spec.retrain)
    if config.epochs == 0:
        return
    method, retraining = load_method(spec.method), None
    if isinstance(method, Retrains):
        hyperparameters = parse_hyperparameters(spec.method, spec.hyperparameters)
        retraining = method.retraining(compressed, dense, hyperparameters)
    for epoch in train(
        compressed.model,
        splits,
        config,
        device=torch.device(spec.workplace.device),
        seed=spec.seed,
        gate=gate,
        checkpoint=folder / CHECKPOINT,
        retraining=retraining,
    ):
        metrics = asdict(epoch)
        yield Report("retrain", epoch.epoch, metrics.pop("epochs"), metrics)
    save_compressed(compressed.model.eval(), compressed.recipe, folder)


def _result(spec: TrialSpec, folder: Path, measured: dict[str, float], splits: Splits) -> dict[str, Any]:
    history = [asdict(epoch) for epoch in read_history(folder / CHECKPOINT)] if spec.retrain["epochs"] else []
    metrics = dict(measured)
    if history:
        dense_accuracy = measured["accuracy"] + measured["accuracy_drop"]
        metrics["accuracy"] = history[-1]["accuracy"]
        metrics["accuracy_drop"] = dense_accuracy - metrics["accuracy"]
        metrics["seconds"] += sum(epoch["seconds"] for epoch in history)
    return {
        "state": "complete",
        "reason": None,
        "metrics": metrics,
        "epochs": history,
        "input_shape": list(splits.example_input().shape[1:]),
        "provenance": provenance(spec),
    }


def provenance(spec: TrialSpec) -> dict[str, Any]:
    """What a result needs to be reproduced: spec, versions, device."""
    device = spec.workplace.device
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor()
    return {
        "spec": asdict(spec),
        "python": platform.python_version(),
        "lrsearch": __version__,
        "torch": torch.__version__,
        "device": name or platform.machine(),
        "host": platform.node(),
    }


@lru_cache(maxsize=1)
def _splits(config: str) -> Splits:
    """The data of a config, kept between the trials of one worker."""
    return load_data(json.loads(config))
