"""Ten throughput measurements of one network in a busy sweep: how far their ratios to dense lie apart.

Usage: python tests/benchmarks/throughput_agreement.py [--workers 1] [--seconds 2.0] [--batch 64]

Every measurement runs in a process of its own, as the trials of a sweep may. Beside it, workers train networks
of the same kind, every step under the gate of the device. Passes where all ratios lie within 5 % of their
median.
"""

import argparse
import multiprocessing
import statistics
import time
from multiprocessing.queues import Queue
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lrsearch.data import load_data
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.throughput import measure_throughput
from lrsearch.models import build_model
from lrsearch.training import TrainingConfig, train

MEASUREMENTS = 10
TOLERANCE = 0.05


def keep_busy(folder: Path, seed: int, epochs: "Queue[int]") -> None:
    torch.set_num_threads(1)
    splits = load_data({"name": "digits"})
    model = build_model({"name": "digits_resnet"})
    gate, device = DeviceGate("cpu", folder), torch.device("cpu")
    for epoch in train(model, splits, TrainingConfig(epochs=100_000), device=device, seed=seed, gate=gate):
        epochs.put(epoch.epoch)


def measure(folder: Path, seconds: float, batch: int, results: "Queue[float]") -> None:
    torch.set_num_threads(1)
    dense, model = (build_model({"name": "digits_resnet", "width": width}) for width in (32, 20))
    asked = time.monotonic()
    with DeviceGate("cpu", folder).measurement():
        waited = time.monotonic() - asked
        result = measure_throughput(model, dense, torch.randn(batch, 1, 8, 8), seconds=seconds)
    print(
        f"speedup {result.speedup:.3f}  spread {result.spread:.3f}  images/s {result.images_per_second:6.0f}"
        f"  dense {result.dense_images_per_second:6.0f}  waited {1000 * waited:3.0f} ms"
    )
    results.put(result.speedup)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    epochs, results = context.Queue(), context.Queue()
    speedups = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        workers = [context.Process(target=keep_busy, args=(folder, seed, epochs)) for seed in range(arguments.workers)]
        for worker in workers:
            worker.start()
        for _ in workers:
            epochs.get()
        for _ in range(MEASUREMENTS):
            measuring = context.Process(target=measure, args=(folder, arguments.seconds, arguments.batch, results))
            measuring.start()
            speedups.append(results.get())
            measuring.join()
        for worker in workers:
            worker.kill()
            worker.join()
    middle = statistics.median(speedups)
    furthest = max(abs(speedup / middle - 1) for speedup in speedups)
    print(f"median {middle:.3f}, furthest from it {100 * furthest:.1f} % (limit {100 * TOLERANCE:.0f} %)")
    raise SystemExit(furthest > TOLERANCE)


if __name__ == "__main__":
    main()
