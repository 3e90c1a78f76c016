"""One trial, from the dense network to a measured result: dense -> compress -> measure -> retrain."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Generator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lrsearch.compression import size_metrics
from lrsearch.data import Splits, load_data
from lrsearch.dense import EVALUATION_BATCH, compare_throughput, load_dense_model, load_dense_record
from lrsearch.files import only_process, read_json, replacing, write_json
from lrsearch.front import broken_bound
from lrsearch.joint_training import retrain_jointly
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.cost import Cost, count_cost
from lrsearch.measure.deployment import Deployment
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.training_speed import measure_training
from lrsearch.methods.base import Compressed
from lrsearch.object_storage import discard, fetch
from lrsearch.outcome import pruned_result, read_result, write_result
from lrsearch.persistence import HISTORY, RECIPE, WEIGHTS, rebuild
from lrsearch.pipeline import CHECKPOINT, ROUNDS, Pipeline
from lrsearch.record import LAYERS, TESTED, TRAINED, Report
from lrsearch.trial_spec import TrialSpec, provenance

MEASURED = "measured.json"


def run_trial(spec: TrialSpec, folder: Path) -> Generator[Report, None, None]:
    """Run one trial, yielding a report after every unit of work; the last has stage ``done``.

    ``folder`` receives ``recipe.json`` and ``weights.safetensors`` and, last of all, ``result.json``. Killed at any
    moment and run again on the same folder, a trial goes on from its last finished stage or epoch. The checkpoint of
    its training stays, for a trial of more epochs that continues it: there epoch e runs as epoch e of the longer
    training does, so that a schedule which had ended starts again at the rate it has there.

    Raises:
        BudgetUnreachableError: the method cannot meet its budget on this network.
        TrialFailedError: training diverged.
        LrsearchError: a checkpoint is damaged, or the data or model cannot be loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with only_process(folder / "lock"):  # a worker orphaned by a killed driver may still be finishing
        torch.set_num_threads(spec.threads or spec.workplace.threads)
        device, gate = torch.device(spec.workplace.device), DeviceGate(spec.workplace.device)
        splits = _splits(json.dumps(spec.data), device)
        fetch(folder)
        if spec.continues is not None:
            _take_over(spec, Path(spec.continues), folder)
        dense = copy.deepcopy(_dense(json.dumps(spec.model), Path(spec.dense_folder), device))
        pipeline = Pipeline(spec, folder, splits, gate)
        earlier = yield from pipeline.earlier_rounds(dense)
        started = time.monotonic()
        compressed = yield from pipeline.compressed(dense)
        compress_seconds = time.monotonic() - started + sum(each["seconds"] for each in earlier)
        metrics = _measured(pipeline, compressed, dense, compress_seconds)
        yield Report("measure", 1, 1, metrics)
        reason = _infeasible(spec, metrics)
        if reason is None:
            yield from retrain_jointly(pipeline, compressed, dense)
            epochs = [epoch for each in earlier for epoch in each["epochs"]] + pipeline.epochs()
            result = _result(spec, metrics, epochs, splits)
        else:
            result = pruned_result(reason, metrics)
        write_result(folder, result)
        discard(folder / ROUNDS)
    yield Report("done", 1, 1, result["metrics"])


def evaluate_test(spec: TrialSpec, folder: Path) -> float:
    """Accuracy in percent of a finished trial on the test split, evaluated once and then remembered."""
    if (known := known_test_accuracy(folder)) is not None:
        return known
    fetch(folder)
    torch.set_num_threads(spec.workplace.threads)
    device = torch.device(spec.workplace.device)
    model = rebuild(folder).to(device)
    splits, gate = _splits(json.dumps(spec.data), device), DeviceGate(spec.workplace.device)
    accuracy = evaluate(model, splits.batches("test", EVALUATION_BATCH), device, gate, splits.score)["accuracy"]
    write_json(folder / TESTED, {"test_accuracy": accuracy})
    return accuracy


def known_test_accuracy(folder: Path) -> float | None:
    """The same where it was evaluated before; nothing else of the trial is needed for that."""
    fetch(folder / TESTED)
    known = read_json(folder / TESTED, "delete it to evaluate again")
    return None if known is None else float(known["test_accuracy"])


def _take_over(spec: TrialSpec, earlier: Path, folder: Path) -> None:
    """Copy what a finished trial left, unless its training cannot go on: then all begins anew."""
    fetch(earlier)
    result = read_result(earlier)
    can_go_on = result is not None and ((earlier / CHECKPOINT).exists() or not result["epochs"])
    if can_go_on and spec.retrain.get("rounds", 1) == 1 and not (folder / RECIPE).exists():
        for name in (CHECKPOINT, MEASURED, HISTORY, LAYERS, WEIGHTS, RECIPE):  # the recipe vouches for all
            if (earlier / name).exists():
                with replacing(folder / name) as temporary:
                    shutil.copyfile(earlier / name, temporary)


def _measured(
    pipeline: Pipeline, compressed: Compressed, dense: nn.Module, compress_seconds: float
) -> dict[str, float]:
    """What is known before retraining: sizes, speed beside the dense network, accuracy without retraining."""
    spec, folder, splits, gate = pipeline.spec, pipeline.folder, pipeline.splits, pipeline.gate
    known = read_json(folder / MEASURED, "delete it to measure again")
    if known is not None:
        return known
    started = time.monotonic()
    record = load_dense_record(Path(spec.dense_folder))
    spec.workplace.check_kind(record)
    example = splits.example_input().to(spec.workplace.device)
    model = compressed.model
    sizes = size_metrics(Cost(record.params, record.flops), count_cost(model, example))
    metrics: dict[str, float] = {
        **compressed.metrics,
        **{key: value for key, value in sizes.items() if value is not None},
    }
    if _infeasible(spec, metrics) is None:
        best = Deployment(**record.deployment) if record.deployment else None
        torch.set_num_threads(spec.workplace.threads)
        throughput = compare_throughput(model, dense, example, spec.workplace, gate, best)
        torch.set_num_threads(spec.threads or spec.workplace.threads)
        validation = splits.batches("validation", EVALUATION_BATCH)
        scores = evaluate(model, validation, torch.device(spec.workplace.device), gate, splits.score)
        metrics |= {
            **_training_speed(pipeline, compressed, dense),
            "speedup": throughput.speedup,
            "speedup_spread": throughput.spread,
            "speedup_best": throughput.reference_speedup,
            "throughput": throughput.reference_speedup * record.throughput,
            "slower_than_dense": float(metrics.get("cr_f", 0) > 0 and throughput.speedup <= 1),
            **scores,
            "accuracy_drop": record.accuracy - scores["accuracy"],
            "compressed_accuracy": scores["accuracy"],
        }
        if "predicted_speedup" in metrics:
            metrics["predicted_speedup_error"] = 100 * (metrics["predicted_speedup"] / throughput.speedup - 1)
    metrics["seconds"] = compress_seconds + time.monotonic() - started
    write_json(folder / MEASURED, metrics)
    return metrics


def _infeasible(spec: TrialSpec, metrics: dict[str, float]) -> str | None:
    """Which bound a network breaks that no training can mend, as a sentence."""
    fixed = {name: bound for name, bound in spec.constraints.items() if name not in TRAINED}
    return broken_bound(metrics, fixed)


def _training_speed(pipeline: Pipeline, compressed: Compressed, dense: nn.Module) -> dict[str, float]:
    """How fast the method's own training is in its first epoch, beside the dense network's, unless it told itself."""
    config, retraining = pipeline.config, pipeline.retraining(compressed, dense)
    if retraining is None or config.epochs == 0 or "train_speedup" in compressed.metrics:
        return {}
    workplace, example = pipeline.spec.workplace, pipeline.splits.example_input()
    inputs = example.expand(max(2, config.batch_size), *example.shape[1:]).contiguous().to(workplace.device)
    with pipeline.gate.measurement():
        speed = measure_training(
            compressed.model, dense, inputs, frozen=retraining.frozen(1), seconds=workplace.seconds
        )
    return {"train_throughput": speed.images_per_second, "train_speedup": speed.speedup}


def _result(
    spec: TrialSpec, measured: dict[str, float], epochs: list[dict[str, Any]], splits: Splits
) -> dict[str, Any]:
    metrics = dict(measured)
    if epochs:
        dense_accuracy = measured["accuracy"] + measured["accuracy_drop"]
        metrics |= {name: epochs[-1][name] for name in splits.score(torch.zeros(0, 0))}
        metrics["accuracy_drop"] = dense_accuracy - metrics["accuracy"]
        metrics["seconds"] += sum(epoch["seconds"] for epoch in epochs)
    return {
        "state": "complete",
        "reason": None,
        "metrics": metrics,
        "epochs": epochs,
        "input_shape": list(splits.example_input().shape[1:]),
        "provenance": provenance(spec),
    }


@lru_cache(maxsize=1)
def _dense(model: str, folder: Path, device: torch.device) -> nn.Module:
    """The dense network, kept between the trials of one worker."""
    return load_dense_model(json.loads(model), folder, device)


@lru_cache(maxsize=1)
def _splits(config: str, device: torch.device) -> Splits:
    """The data of a config, what fits in memory on the device, kept between the trials of one worker."""
    return load_data(json.loads(config)).on(device)
