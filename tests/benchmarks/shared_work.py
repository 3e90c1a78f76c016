"""What the trials of a sweep share: processor seconds of ten compressions by one method, one worker after another.

Run: python tests/benchmarks/shared_work.py [MODEL] [METHOD]

The first trial computes the sweep's statistics, the others find them; each has another budget. Batch norm is not
re-estimated, which depends on the data and not on the trial's place.
"""

import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from lrsearch.data import Splits
from lrsearch.dense import RECORD, Workplace
from lrsearch.files import write_json
from lrsearch.models import build_model
from lrsearch.persistence import WEIGHTS, save_weights
from lrsearch.record import DenseRecord
from lrsearch.trial import TrialSpec, run_trial

TRIALS = 10


def noise():
    """A few colour images, enough to know their shape."""
    data = TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8))
    return Splits("noise", data, data, data, data, classes=8)


def spec_of(number, model, method, folder):
    return TrialSpec(
        number=number,
        method=method,
        hyperparameters={"budget": {"params": 0.25 + 0.05 * number}, "recalibrate": False},
        model={"name": model},
        data={"name": f"{Path(__file__).stem}:noise"},
        retrain={"epochs": 0},
        seed=number,
        workplace=Workplace(seconds=0.1),
        dense_folder=str(folder / "dense"),
        cache_folder=str(folder / "cache"),
    )


def compress(spec, folder):
    """Processor and wall seconds until the compressed network is saved."""
    cpu, wall = time.process_time(), time.monotonic()
    trial = run_trial(spec, folder)
    for report in trial:
        if report.stage == "compress" and report.done == report.total:
            break
    spent = time.process_time() - cpu, time.monotonic() - wall
    trial.close()
    return spent


def main(model, method):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_weights(build_model({"name": model}), folder / "dense" / WEIGHTS)
        write_json(folder / "dense" / RECORD, asdict(DenseRecord(1, 1, 90.0, 90.0, 1.0)))
        seconds = [compress(spec_of(n, model, method, folder), folder / str(n)) for n in range(TRIALS)]
    print(f"{method} on {model}")
    for number, (cpu, wall) in enumerate(seconds):
        print(
            f"trial {number}: {cpu:7.3f} s of processor, {wall:7.3f} s, {100 * cpu / seconds[0][0]:6.1f} % of the first"
        )


if __name__ == "__main__":
    main(*(sys.argv[1:] + ["resnet18", "alds"][len(sys.argv) - 1 :]))
