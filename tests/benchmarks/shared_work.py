"""What the trials of a sweep share: processor seconds of ten compressions by one method, one worker after another.

Run: python tests/benchmarks/shared_work.py [MODEL] [METHOD]

The first trial computes what all share; a later one adds what it is the first to need. Budgets are those that a search
starts with, and then random ones. Batch norm is not re-estimated, which depends on the data and not on the trial's
place.
"""

import random
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from lrsearch import pipeline
from lrsearch.data import Splits
from lrsearch.dense import RECORD, Workplace
from lrsearch.factorize import build_layer
from lrsearch.files import write_json
from lrsearch.models import build_model
from lrsearch.persistence import WEIGHTS, save_weights
from lrsearch.recipe import Factorization
from lrsearch.record import DenseRecord
from lrsearch.sweep.sampler import START_QUANTILES
from lrsearch.trial import run_trial
from lrsearch.trial_spec import TrialSpec

TRIALS = 10
SMALLEST, LARGEST = 0.1, 0.8


def noise():
    """A few colour images, enough to know their shape."""
    data = TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8))
    return Splits("noise", data, data, data, data, classes=8)


def budgets():
    """The fractions of parameters to keep."""
    draw = random.Random(0).random
    places = [*START_QUANTILES, *(draw() for _ in range(TRIALS))][:TRIALS]
    return [SMALLEST + place * (LARGEST - SMALLEST) for place in places]


def spec_of(number, budget, model, method, folder):
    return TrialSpec(
        number=number,
        method=method,
        hyperparameters={"budget": {"params": budget}, "recalibrate": False},
        model={"name": model},
        data={"name": f"{Path(__file__).stem}:noise"},
        retrain={"epochs": 0},
        seed=number,
        workplace=Workplace(seconds=0.1),
        dense_folder=str(folder / "dense"),
        cache_folder=str(folder / "cache"),
    )


class Clock:
    """Notes when the pipeline has the compressed network, and when it has compared it with the dense one and saved."""

    def __init__(self):
        self.compare, self.save = pipeline.compare_layers, pipeline.save_compression
        pipeline.compare_layers, pipeline.save_compression = self.compressed, self.saved
        self.marks = []

    def note(self):
        self.marks.append((time.process_time(), time.monotonic()))

    def compressed(self, *arguments):
        self.note()
        return self.compare(*arguments)

    def saved(self, *arguments):
        self.save(*arguments)
        self.note()

    def seconds(self, spec, folder):
        """Of processor until the network is there, until it is saved, and of wall time until then."""
        self.marks = []
        self.note()
        trial = run_trial(spec, folder)
        next(report for report in trial if report.stage == "measure")
        trial.close()
        (start, begun), (compressed, _), (saved, ended) = self.marks
        return compressed - start, saved - start, ended - begun


def main(model, method):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    build_layer(nn.Conv2d(8, 8, 3), Factorization(kind="svd", ranks=(1,)))  # what torch imports when first used
    clock = Clock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_weights(build_model({"name": model}), folder / "dense" / WEIGHTS)
        write_json(folder / "dense" / RECORD, asdict(DenseRecord(1, 1, 90.0, 90.0, 1.0)))
        print(f"{method} on {model}: seconds of processor, and what they are of the first trial's")
        print(f"{'trial':>5} {'kept':>5} {'compressed':>18} {'and saved':>18} {'wall seconds':>13}", flush=True)
        first = None
        for number, budget in enumerate(budgets()):
            *taken, wall = clock.seconds(spec_of(number, budget, model, method, folder), folder / str(number))
            first = first or taken
            cells = [f"{own:9.3f} ({100 * own / base:5.1f} %)" for own, base in zip(taken, first, strict=True)]
            print(f"{number + 1:5} {budget:5.2f} {' '.join(cells)} {wall:13.3f}", flush=True)
        shared = (folder / "dense" / pipeline.SHARED).iterdir()
        kept, whole = (sum(file.stat().st_size for file in files) for files in (shared, [folder / "dense" / WEIGHTS]))
        print(f"shared: {kept / 2**20:.0f} MiB, the network: {whole / 2**20:.0f} MiB")


if __name__ == "__main__":
    main(*(sys.argv[1:] + ["resnet18", "alds"][len(sys.argv) - 1 :]))
