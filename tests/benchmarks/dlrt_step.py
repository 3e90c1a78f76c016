"""Time and memory of a low-rank training step, against a dense step and against three plain passes.

Usage: python tests/benchmarks/dlrt_step.py FOLDER [--width 5000] [--ranks 5,20,40,80,160,200] [--rounds 5]

A five-layer perceptron, four layers low-rank, the classifier dense, plain SGD; a low-rank step includes its truncation
back to the rank (an S step in the same bases, without any, is listed apart). In each round every kind of step runs
once, one right after the other; times are medians, ratios are of the same run. Inference: the deployed layers beside
the dense ones, in alternating blocks. Memory: peak of a process that trains only this way, above what it had before
the network was made. Writes FOLDER/dlrt_step.png.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from resident_memory import resident_memory
from three_pass import ThreePass
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import skip_init
from torch.optim import SGD

from lrsearch.factorize import factorize_layer
from lrsearch.measure.throughput import measure_throughput
from lrsearch.methods.one_shot.candidates import svd
from lrsearch.training.dlrt import Integrator, Stepper, truncate
from lrsearch.training.dlrt.layers import LowRankLinear

BATCH, LR = 256, 1e-3
Step = Callable[[], None]


def sizes(width: int) -> list[int]:
    return [784, width, width, width, width]


def dense_network(width: int) -> nn.Sequential:
    pairs = zip(sizes(width)[:-1], sizes(width)[1:], strict=True)
    hidden = [module for pair in pairs for module in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def low_rank_network(width: int, rank: int) -> tuple[nn.Sequential, dict[str, LowRankLinear]]:
    """Random factors: of full size nothing is ever made."""
    modules: list[nn.Module] = []
    for inputs, outputs in zip(sizes(width)[:-1], sizes(width)[1:], strict=True):
        plain = skip_init(nn.Linear, inputs, outputs, device="meta")
        plain.bias = nn.Parameter(torch.zeros(outputs))
        bases = [torch.linalg.qr(torch.randn(1, size, rank)).Q for size in (outputs, inputs)]
        core = torch.linspace(1, 0.1, rank).diag_embed()[None]
        modules += [LowRankLinear(plain, bases[0], core, bases[1]), nn.ReLU()]
    network = nn.Sequential(*modules, nn.Linear(width, 10))
    return network, {name: module for name, module in network.named_modules() if isinstance(module, LowRankLinear)}


def dense_step(width: int) -> Step:
    network, (x, y) = dense_network(width), batch()
    optimizer = SGD(network.parameters(), lr=LR)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def low_rank_step(width: int, rank: int, integrator: Integrator) -> Step:
    (network, layers), (x, y) = low_rank_network(width, rank), batch()
    optimizer = SGD(network.parameters(), lr=LR)
    stepper = Stepper(network, layers, optimizer, integrator, cross_entropy)

    def step() -> None:
        stepper.step(x, y, seed=0)
        if integrator in ("bug", "parallel"):
            truncate(layers, lambda _: dict.fromkeys(layers, rank), optimizer.state)

    return step


def three_pass_step(width: int, rank: int) -> Step:
    network, (x, y) = ThreePass(sizes(width), nn.Linear(width, 10), rank), batch()
    return lambda: network.step(x, y, LR)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(BATCH, 784), torch.randint(10, (BATCH,))


def medians(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    return {name: median(each[1:]) for name, each in times.items()}


def inference_speedup(width: int, rank: int, dense: nn.Sequential) -> float:
    """Of the deployed layers: two plain ones each."""
    network = nn.Sequential(*dense)
    for place, module in enumerate(low_rank_network(width, rank)[0]):
        if isinstance(module, LowRankLinear):
            network[place] = factorize_layer(dense[place], svd(0, 1, rank), weights=module.stages())
    return measure_throughput(network, dense, batch()[0], seconds=2).speedup


def peak(kind: str, width: int, rank: int) -> float:
    """MiB that training this way takes at its peak, in a process of its own."""
    command = [sys.executable, __file__, "-", "--width", str(width), "--peak-of", kind, "--ranks", str(rank)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def report_peak(kind: str, width: int, rank: int) -> None:
    torch.linalg.qr(torch.randn(8, 8) @ torch.randn(8, 8))  # what libraries keep for themselves
    before = resident_memory()
    step = dense_step(width) if kind == "dense" else low_rank_step(width, rank, "bug")
    for _ in range(3):
        step()
    print((resident_memory("VmHWM") - before) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=5000)
    parser.add_argument("--ranks", default="5,20,40,80,160,200")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-of", choices=["dense", "bug"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    ranks = [int(rank) for rank in options.ranks.split(",")]
    torch.manual_seed(0)
    if options.peak_of:
        return report_peak(options.peak_of, options.width, ranks[0])
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"width {options.width}, batch {BATCH}, {torch.get_num_threads()} threads; dense / low-rank time of a step")
    print("rank  bug  parallel  S only  three passes  three passes/bug  inference  MiB", flush=True)
    rows = []
    dense, plain = dense_network(options.width).eval(), dense_step(options.width)
    for rank in ranks:
        steps = {kind: low_rank_step(options.width, rank, kind) for kind in ("bug", "parallel", "s_only")}
        found = medians({"dense": plain, "three": three_pass_step(options.width, rank), **steps}, options.rounds)
        ratios = [found["dense"] / found[kind] for kind in ("bug", "parallel", "s_only", "three")]
        inference, held = inference_speedup(options.width, rank, dense), peak("bug", options.width, rank)
        rows.append((rank, *ratios, found["three"] / found["bug"], inference, held))
        print("{:4d} {:5.1f} {:8.1f} {:7.1f} {:12.1f} {:17.2f} {:10.1f} {:6.0f}".format(*rows[-1]), flush=True)
    print(f"dense step {found['dense']:.2f} s, {peak('dense', options.width, 1):.0f} MiB")
    draw(options.folder / "dlrt_step.png", rows, options.width)
    return None


def draw(path: Path, rows: list[tuple[float, ...]], width: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    labels = ("bug, one pass", "parallel", "S only", "three plain passes")
    for column, label in enumerate(labels, start=1):
        axes.plot([row[0] for row in rows], [row[column] for row in rows], "o-", label=label)
    axes.axhline(1, color="0.5", linewidth=1, label="dense")
    axes.set(xlabel="rank", ylabel="dense time / time of a step", yscale="log", title=f"Training step, width {width}")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
