"""Ten measurements of one network beside a busy core, and one of the network made 10 % slower.

Usage: python tests/benchmarks/timing_trust.py [--busy 1] [--seconds 2.0] [--batch 32]

A shallower network is measured beside a deeper one while other processes multiply matrices without regard for
anybody. Passes where all ratios lie within 5 % of their median and the planted slowdown, a tenth of the forward pass
run again, is told from 1 by more than the ratios' spread.
"""

import argparse
import multiprocessing
import statistics

import torch
from torch import Tensor, nn

from lrsearch.measure.throughput import measure_throughput
from lrsearch.models import build_model

MEASUREMENTS = 10
TOLERANCE = 0.05
PLANTED = 0.10


class Slowed(nn.Module):
    """Runs a network, and once more on a tenth of the batch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        self.network(inputs[: round(PLANTED * len(inputs))])
        outputs: Tensor = self.network(inputs)
        return outputs


def keep_busy() -> None:
    torch.set_num_threads(1)
    matrix = torch.randn(512, 512)
    while True:
        torch.mm(matrix, matrix)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=1, help="number of busy processes")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    busy = [multiprocessing.get_context("spawn").Process(target=keep_busy) for _ in range(arguments.busy)]
    for process in busy:
        process.start()
    try:
        dense, model = (build_model({"name": name}).eval() for name in ("resnet32", "resnet20"))
        inputs = torch.randn(arguments.batch, 3, 32, 32)
        ratios = [
            measure_throughput(model, dense, inputs, seconds=arguments.seconds).speedup for _ in range(MEASUREMENTS)
        ]
        slowed = measure_throughput(Slowed(dense), dense, inputs, seconds=arguments.seconds)
    finally:
        for process in busy:
            process.kill()
    middle = statistics.median(ratios)
    furthest = max(abs(ratio / middle - 1) for ratio in ratios)
    found = 1 / slowed.speedup - 1
    print("ratios to dense " + " ".join(f"{ratio:.3f}" for ratio in ratios))
    print(f"median {middle:.3f}, furthest from it {100 * furthest:.1f} % (limit {100 * TOLERANCE:.0f} %)")
    print(f"planted {100 * PLANTED:.0f} % slower, found {100 * found:.1f} %")
    raise SystemExit(furthest > TOLERANCE or not abs(found - PLANTED) < TOLERANCE)


if __name__ == "__main__":
    main()
