"""Trials that are really trained, at every point of a grid: what searches are compared on without training again.

Usage: python -m tests.benchmarks.trained_trials FOLDER [--network digits|resnet20] [--methods alds,pca]
       [--device cpu|cuda] [--processes 2]

Trials are those of this package (``run_trial``, but for the speed of their training). Budgets are rounded to a quarter
of an octave and all trials train with one seed, so that searches share trials, which are kept in FOLDER, speeds
included: seeds are the searches'. Whatever is missing is trained when a search asks for it; this command trains all
there are, side by side. ``resnet20`` is the network that was trained on CIFAR-10 as JPEG files, to be made at least
four times smaller; it has seen all training images, so that validation is on 2,000 of the test images.
"""

import argparse
import functools
import hashlib
import json
import math
import multiprocessing
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.data import TensorDataset

from lrsearch.data import Splits
from lrsearch.data.images import IMAGENET, ShiftAndFlip
from lrsearch.dense import DenseSpec, Workplace, load_dense_record, prepare_dense
from lrsearch.distributions import Choice, Distribution
from lrsearch.files import read_json, write_json
from lrsearch.outcome import failed_result, failure_reason, read_result, write_result
from lrsearch.record import DenseRecord
from lrsearch.space import Space, parse_space
from lrsearch.trial import MEASURED, run_trial
from lrsearch.trial_spec import TrialSpec
from tests.benchmarks.resnet20_curve import read
from tests.conftest import REAL_DATA

STEPS_PER_OCTAVE = 4


def methods(budgets: list[float], alphas: list[float], names: tuple[str, ...]) -> dict[str, Any]:
    within = {"budget": {"params": {"loguniform": budgets}}}
    return {**dict.fromkeys(names, within), "tucker": {"alpha": {"loguniform": alphas}, "classifier": False}}


NETWORKS: dict[str, dict[str, Any]] = {
    "digits": {
        "model": {"name": "digits_resnet", "width": 8},
        "data": {"name": "digits"},
        "train": {"epochs": 12, "optimizer": "sgd", "lr": 0.1},
        "retrain": {"epochs": 9},
        "constraints": {"accuracy_drop": 10.0},
        "methods": methods([0.03, 0.8], [1.5, 20], ("alds", "alds_output", "pca", "svd_energy", "ft")),
    },
    "resnet20": {
        "model": {"name": "resnet20", "weights": str(REAL_DATA / "resnet20_cifar10_jpeg.pt")},
        "data": {"name": "tests.benchmarks.trained_trials:cifar_jpeg"},
        "train": {"optimizer": "sgd", "lr": 0.05, "batch_size": 128},
        "retrain": {"epochs": 9},
        "constraints": {"accuracy_drop": 30.0},
        "methods": methods([0.03, 0.25], [4, 20], ("alds", "alds_output", "ft")),
    },
}
OBJECTIVES = ("accuracy", "cr_f", "speedup")


def cifar_jpeg(images: int = 5000, validation: int = 2000) -> Splits:
    """A part of the training images, and validation on test images."""
    train, test = read(REAL_DATA / "cifar10.tar.xz", images)
    order = torch.randperm(len(test[0]), generator=torch.Generator().manual_seed(0))
    chosen, others = (
        TensorDataset(test[0][part], test[1][part]) for part in order.split([validation, 10_000 - validation])
    )
    known = TensorDataset(*train)
    calibration = TensorDataset(*(tensor[:1000] for tensor in train))
    augment = ShiftAndFlip(4, IMAGENET.black, flip=True)
    return Splits("cifar10 as JPEG", known, calibration, chosen, others, classes=10, augment=augment)


@dataclass(frozen=True)
class Trials:
    """One network and its data, and the trials that were made of it."""

    network: str
    folder: Path
    device: str = "cpu"
    rungs: dict[str, int] | None = field(default_factory=dict)
    """Those of a search; empty for the usual."""
    objectives: tuple[str, ...] = OBJECTIVES
    """Of a search; all are maximised."""

    def space(self, methods: list[str], seed: int) -> Space:
        content = NETWORKS[self.network]
        return parse_space(
            content
            | {
                "methods": {name: content["methods"][name] for name in methods},
                "objectives": dict.fromkeys(self.objectives, "max"),
                "measure": {"seconds": 2},
                "search": {"trials": 10_000, "seed": seed, "rungs": self.rungs},
            }
        )

    @property
    def methods(self) -> list[str]:
        return list(NETWORKS[self.network]["methods"])

    @property
    def epochs(self) -> int:
        return NETWORKS[self.network]["retrain"]["epochs"]

    @property
    def workplace(self) -> Workplace:
        return replace(self.space(self.methods, 0).workplace(), device=self.device)

    @cached_property
    def dense(self) -> DenseRecord:
        folder = self.folder / "dense"
        if not (folder / "dense.json").exists():
            space = self.space(self.methods, 0)
            spec = DenseSpec(space.model, space.data, space.train.model_dump(mode="json"), 0, self.workplace)
            for _ in prepare_dense(spec, folder):
                pass
        return load_dense_record(folder)

    def trained(self, method: str, hyperparameters: dict[str, Any]) -> dict[str, Any]:
        """The result of a trial, with what was measured before its training; made once."""
        rounded = _rounded(hyperparameters)
        key = hashlib.sha256(json.dumps([method, rounded], sort_keys=True).encode()).hexdigest()[:16]
        known = self.folder / "trials" / f"{key}.json"
        if not known.exists():
            assert self.dense
            space, folder = self.space([method], 0), self.folder / f"trial-{key}"
            folders = str(self.folder / "dense"), str(self.folder / "cache")
            retrain = space.retraining().model_dump(mode="json")
            spec = TrialSpec(0, method, rounded, space.model, space.data, retrain, 0, self.workplace, *folders)
            with patch("lrsearch.trial._training_speed", lambda *_: {}):
                try:
                    for _ in run_trial(spec, folder):
                        pass
                except Exception as error:  # as a worker does
                    write_result(folder, failed_result(failure_reason(error)))
            measured = read_json(folder / MEASURED, "")
            known.parent.mkdir(exist_ok=True)
            write_json(known, read_result(folder) | {"measured": measured, "method": method, "values": rounded})
            shutil.rmtree(folder)
        return read_json(known, "")

    def grid(self, methods: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every point that a search may ask for, methods taking turns."""
        space = self.space(methods, 0)
        values = {method: list(_points(space, method)) for method in methods}
        for place in range(max(map(len, values.values()))):
            for method, points in values.items():
                if place < len(points):
                    yield method, points[place]


def _points(space: Space, method: str) -> Iterator[dict[str, Any]]:
    (distribution,) = space.open_choices(method).values()
    for value in _steps(distribution):
        yield space.draw(method, lambda *_, value=value: value)


def _steps(distribution: Distribution) -> list[float]:
    assert not isinstance(distribution, Choice)
    low, high = (round(math.log2(end) * STEPS_PER_OCTAVE) for end in (distribution.low, distribution.high))
    return [2 ** (exponent / STEPS_PER_OCTAVE) for exponent in range(low, high + 1)]


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    def step(value: Any) -> Any:
        if isinstance(value, dict):
            return _rounded(value)
        return (
            round(2 ** (round(math.log2(value) * STEPS_PER_OCTAVE) / STEPS_PER_OCTAVE), 6)
            if type(value) is float
            else value
        )

    return {name: step(value) for name, value in values.items()}


def _make(trials: Trials, point: tuple[str, dict[str, Any]]) -> str:
    torch.set_num_threads(1)
    result = trials.trained(*point)
    metrics = result["metrics"]
    found = f"{metrics['accuracy']:6.2f} % at CR-P {metrics['cr_p']:5.2f}" if metrics else result["reason"]
    return f"{point[0]:12} {point[1]} {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", choices=NETWORKS, default="digits")
    parser.add_argument("--methods", default="", help="only some, separated by commas")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    trials = Trials(options.network, (options.folder / options.network).resolve(), options.device)
    trials.folder.mkdir(parents=True, exist_ok=True)
    points = list(trials.grid(options.methods.split(",") if options.methods else trials.methods))
    print(f"dense: {trials.dense.accuracy:.2f} % on validation; {len(points)} trials", flush=True)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for number, line in enumerate(pool.imap_unordered(functools.partial(_make, trials), points), start=1):
            print(f"{number:4d} {line}", flush=True)


if __name__ == "__main__":
    main()
