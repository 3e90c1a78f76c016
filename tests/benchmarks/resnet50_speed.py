"""How much faster ResNet-50 becomes at half its size, on this machine: every way of compressing it side by side.

Usage: python tests/benchmarks/resnet50_speed.py [--batch 8] [--image 160] [--rounds 15] [--contiguous]
           [--only vanilla merging ...] [--training] [--profile]

Weights are random: time does not depend on them. All networks and the dense one are timed in rounds of random order,
channels last unless told otherwise; the speed-up is the median over rounds of dense time / time, the spread its median
absolute deviation. ``--training`` times steps of training, factors frozen as published, instead of inference;
``--profile`` shows where the time of each network goes.
"""

import argparse
import time
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torch.profiler import profile

from lrsearch.compression import Compression, compress
from lrsearch.measure.cost import count_cost
from lrsearch.measure.deployment import Deployment
from lrsearch.measure.interleave import interleaved
from lrsearch.measure.training_speed import training_step
from lrsearch.methods.one_shot.freezing import frozen_factors

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "vanilla": ("tucker", {"alpha": 2.0}),
    "optimised ranks": ("tucker", {"alpha": 2.0, "optimise_ranks": True}),
    "merging": ("tucker", {"alpha": 2.0, "merge": True}),
    "2 branches": ("tucker", {"alpha": 2.0, "branches": 2}),
    "latency rule": ("tucker", {"budget": {"params": 0.5, "latency": 0.6}}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--contiguous", action="store_true", help="channels first")
    parser.add_argument("--only", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    deployment = Deployment(arguments.batch, channels_last=not arguments.contiguous)
    dense, example = torchvision.models.resnet50().eval(), torch.randn(1, 3, arguments.image, arguments.image)
    results = {}
    for way in arguments.only:
        method, values = WAYS[way]
        started = time.monotonic()
        results[way] = compress(dense, method, example_input=example, deployment=deployment, **values)
        print(f"{way}: compressed in {time.monotonic() - started:.0f} s", flush=True)
    networks = {"dense": dense} | {way: deployment.network(result.model) for way, result in results.items()}
    networks["dense"], inputs = deployment.network(dense), deployment.batch(example)
    if arguments.training:
        runs = [training_step(network, inputs, frozen(results.get(way))) for way, network in networks.items()]
    else:
        runs = [partial(network, inputs) for network in networks.values()]
    with torch.inference_mode(not arguments.training):
        times = interleaved(runs, inputs.device, block_seconds=0, warm_up=0.5, rounds=arguments.rounds)
        print(f"ResNet-50, {arguments.batch} images of {arguments.image} x {arguments.image}, {deployment}")
        show(networks, results, times, example)
        for way, run in zip(networks, runs, strict=True) if arguments.profile else ():
            with profile() as recorded:
                run()
            print(way, recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=5), sep="\n")


def frozen(result: Compression | None) -> tuple[str, ...]:
    return () if result is None else tuple(frozen_factors(result.recipe, "published")(1))


def show(networks: dict[str, nn.Module], results: dict[str, Any], times: np.ndarray, example: torch.Tensor) -> None:
    full = count_cost(networks["dense"], example)
    print(f"{'':18}{'params':>9}{'FLOPs':>9}{'ms':>9}{'speed-up':>10}{'spread':>8}{'predicted':>11}")
    for (way, network), column in zip(networks.items(), times.T, strict=True):
        cost, ratios = count_cost(network, example), times[:, 0] / column
        predicted = results[way].report.get("predicted_speedup") if way in results else None
        print(
            f"{way:18}{100 * (cost.params / full.params - 1):+8.1f}%{100 * (cost.flops / full.flops - 1):+8.1f}%"
            f"{1000 * np.median(column):9.1f}{100 * (np.median(ratios) - 1):+9.1f}%"
            f"{100 * np.median(abs(ratios - np.median(ratios))):7.1f}%"
            + (f"{100 * (predicted - 1):+10.1f}%" if predicted else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
