"""The dense network of a sweep: trained or loaded once, measured once, kept under a key of all it depends on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.data import Splits, load_data
from lrsearch.errors import LrsearchError
from lrsearch.files import write_json
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.cost import count_cost
from lrsearch.measure.deployment import Deployment
from lrsearch.measure.device import device_kind
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.throughput import Throughput, measure_throughput
from lrsearch.models import build_model
from lrsearch.object_storage import discard, fetch
from lrsearch.persistence import WEIGHTS, read_weights, save_weights
from lrsearch.record import DenseRecord, Report
from lrsearch.training import Retraining, TrainingConfig, train
from lrsearch.training.distillation import distil_logits

RECORD = "dense.json"
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Workplace:
    """Where a network is trained and how its throughput is measured there."""

    device: str = "cpu"
    threads: int = 1
    deployment: Deployment = field(default_factory=Deployment)
    seconds: float = 1.0
    processes: int = 1
    """That share the retraining of one trial, each on a GPU of its own where the device is ``cuda``."""
    compares_speed: bool = True
    """Whether speeds decide something, and so must all be of one kind of device."""

    def check_kind(self, record: DenseRecord) -> None:
        """See to it that speeds measured here compare with the dense network's.

        Raises:
            LrsearchError: it was measured on another kind of device.
        """
        kind = device_kind(self.device)
        if self.compares_speed and record.device not in ("", kind):
            raise LrsearchError(
                f"this machine has {kind}, but the dense network of the sweep was measured on {record.device}, and "
                "speeds on the two do not compare; let resources.accelerator name the machines to use"
            )


@dataclass(frozen=True)
class DenseSpec:
    """Everything the dense network depends on, as plain data, and where it is trained and measured."""

    model: dict[str, Any]
    data: dict[str, Any]
    train: dict[str, Any]
    seed: int
    workplace: Workplace
    deployments: tuple[Deployment, ...] = ()
    """Those that are searched, of which the dense network's own is the fastest; none for that of the workplace."""

    def key(self) -> str:
        """A name for the network: the same for the same model, weights file, data, training and seed."""
        content: dict[str, Any] = {"model": self.model, "data": self.data, "seed": self.seed}
        weights = self.model.get("weights")
        if weights is None:
            content["train"] = self.train
            weights = ((self.train.get("distil") or {}).get("teacher") or {}).get("weights")
        if weights is not None:
            content["weights"] = _digest(Path(weights))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def prepare_dense(spec: DenseSpec, folder: Path) -> Iterator[Report]:
    """Train (or load) and measure the dense network in ``folder``, yielding a report per epoch.

    What is already there is not done again, and training continues from its last epoch.

    Raises:
        LrsearchError: unknown model or data, missing data or weights, a damaged file in ``folder``, or the network
            was measured on another kind of device.
    """
    fetch(folder)
    if (folder / RECORD).exists():
        spec.workplace.check_kind(load_dense_record(folder))
        return
    started = time.monotonic()
    torch.set_num_threads(spec.workplace.threads)
    device, gate = torch.device(spec.workplace.device), DeviceGate(spec.workplace.device)
    splits = load_data(spec.data).on(device)
    torch.manual_seed(spec.seed)
    model = build_model(spec.model).to(device)
    folder.mkdir(parents=True, exist_ok=True)
    if "weights" not in spec.model:
        config = TrainingConfig.model_validate(spec.train)
        checkpoint = folder / "checkpoint.pt"
        lesson = yield from _lesson(spec, config, folder / "teacher")
        where: dict[str, Any] = {"device": device, "seed": spec.seed, "gate": gate, "checkpoint": checkpoint}
        for epoch in train(model, splits, config, **where, retraining=lesson):
            yield Report("retrain", epoch.epoch, epoch.epochs, {"loss": epoch.loss, "accuracy": epoch.accuracy})
        discard(checkpoint)
    model.eval()
    save_weights(model, folder / WEIGHTS)
    record = _measure(model, splits, spec, gate, time.monotonic() - started)
    write_json(folder / RECORD, asdict(record))


def _lesson(spec: DenseSpec, config: TrainingConfig, folder: Path) -> Generator[Report, None, Retraining | None]:
    """Prepare the network's teacher, if it has one, and what it adds to the training."""
    distil = config.distil
    if distil is None or distil.teacher is None:
        return None
    yield from prepare_dense(replace(spec, model=distil.teacher, train=spec.train | {"distil": None}), folder)
    teacher = load_dense_model(distil.teacher, folder, torch.device(spec.workplace.device))
    return Retraining(extra_loss=distil_logits(teacher, distil.weight, distil.temperature))


def load_dense_record(folder: Path) -> DenseRecord:
    """What was measured of the dense network kept in ``folder``."""
    path = folder / RECORD
    fetch(path)
    try:
        return DenseRecord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise LrsearchError(f"{path} is damaged ({error}); delete {folder} to train the dense network again") from error


def load_dense_model(model: dict[str, Any], folder: Path, device: torch.device) -> nn.Module:
    """The dense network kept in ``folder``, in eval mode."""
    network = build_model({key: value for key, value in model.items() if key != "weights"})
    fetch(folder / WEIGHTS)
    read_weights(network, folder / WEIGHTS)
    return network.to(device).eval()


def _measure(model: nn.Module, splits: Splits, spec: DenseSpec, gate: DeviceGate, seconds: float) -> DenseRecord:
    device = torch.device(spec.workplace.device)
    accuracy, test_accuracy = (
        evaluate(model, splits.batches(split, EVALUATION_BATCH), device, gate, splits.score)["accuracy"]
        for split in ("validation", "test")
    )
    example = splits.example_input().to(device)
    cost = count_cost(model, example)
    deployment, throughput = _fastest(model, example, spec, gate)
    return DenseRecord(
        params=cost.params,
        flops=cost.flops or 0,
        accuracy=accuracy,
        test_accuracy=test_accuracy,
        throughput=throughput,
        seconds=seconds,
        device=device_kind(device),
        deployment=asdict(deployment),
    )


def _fastest(model: nn.Module, example: Tensor, spec: DenseSpec, gate: DeviceGate) -> tuple[Deployment, float]:
    """The deployment that suits a network best, and its images per second there."""
    first, *others = spec.deployments or (spec.workplace.deployment,)
    found = {
        each: compare_throughput(model, model, example, replace(spec.workplace, deployment=each), gate, first)
        for each in (first, *others)
    }
    best = max(found, key=lambda each: found[each].reference_speedup)
    return best, found[best].images_per_second


def compare_throughput(
    model: nn.Module,
    dense: nn.Module,
    example: Tensor,
    workplace: Workplace,
    gate: DeviceGate,
    other: Deployment | None = None,
    watch: Callable[[float], object] = lambda _: None,
) -> Throughput:
    """Measure a network beside the dense one, both as deployed, alone on the device.

    With another deployment the dense network takes part as it is there too, as the reference. ``watch`` is told what
    share of the measurement is over.
    """
    deployment = workplace.deployment
    networks, inputs = (deployment.network(model), deployment.network(dense)), deployment.batch(example)
    reference = None
    if other not in (None, deployment):
        reference = other.network(dense), other.batch(example)
    with gate.measurement():
        return measure_throughput(*networks, inputs, seconds=workplace.seconds, reference=reference, watch=watch)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise LrsearchError(f"model.weights is {str(path)!r}, which cannot be read: {error.strerror}") from error
