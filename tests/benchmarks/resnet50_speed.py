"""How much faster ResNet-50 becomes at half its size, on this machine: every way of compressing it side by side.

Usage: python tests/benchmarks/resnet50_speed.py [--batch 8] [--image 160] [--rounds 15] [--layout last] [--fold no]
           [--dtype float32] [--compile no] [--latency 0.6] [--only vanilla merging ...] [--training] [--profile]

Weights are random: time does not depend on them. All networks and the dense one are timed in rounds of random order;
the speed-up is the median over rounds of dense time / time, the spread its median absolute deviation. Half width is a
ResNet-50 whose bottlenecks are built half as wide, as plain pruning leaves it.

``--batch``, ``--layout``, ``--fold``, ``--dtype`` and ``--compile`` take several values: networks are compressed for
the first combination and timed under all, and at the end each one is compared with the dense one where both are
fastest. ``--training`` times steps of training, factors frozen as published, instead of inference; ``--profile`` shows
where the time of each network goes.
"""

import argparse
import time
from functools import partial
from itertools import product
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

WAYS: dict[str, dict[str, Any]] = {
    "vanilla": {"alpha": 2.0},
    "optimised ranks": {"alpha": 2.0, "optimise_ranks": True},
    "2 branches": {"alpha": 2.0, "branches": 2},
    "4 branches": {"alpha": 2.0, "branches": 4},
    "merging": {"alpha": 2.0, "merge": True},
    "latency rule": {},
}
HALF = "half width"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[8])
    parser.add_argument("--image", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layout", nargs="+", choices=["last", "first"], default=["last"], help="of channels")
    parser.add_argument("--fold", nargs="+", choices=["no", "yes"], default=["no"], help="batch norms")
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--compile", nargs="+", choices=["no", "yes"], default=["no"])
    parser.add_argument("--latency", type=float, default=0.6, help="budget of the latency rule, beside half of params")
    parser.add_argument("--only", nargs="*", choices=[*WAYS, HALF], default=[*WAYS, HALF])
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    deployments = [
        Deployment(
            batch, dtype, channels_last=layout == "last", fold_batch_norm=fold == "yes", compile=compiled == "yes"
        )
        for batch, dtype, layout, fold, compiled in product(
            arguments.batch, arguments.dtype, arguments.layout, arguments.fold, arguments.compile
        )
    ]
    WAYS["latency rule"] = {"budget": {"params": 0.5, "latency": arguments.latency}}
    example = torch.randn(1, 3, arguments.image, arguments.image)
    networks: dict[str, nn.Module] = {"dense": torchvision.models.resnet50().eval()}
    results: dict[str, Compression] = {}
    for way in arguments.only:
        started = time.monotonic()
        if way == HALF:
            networks[way] = torchvision.models.resnet50(width_per_group=32).eval()
            continue
        results[way] = compress(
            networks["dense"], "tucker", example_input=example, deployment=deployments[0], **WAYS[way]
        )
        networks[way] = results[way].model
        print(f"{way}: compressed in {time.monotonic() - started:.0f} s", flush=True)
    keys, runs = [], []
    for deployment, (way, network) in product(deployments, networks.items()):
        inputs, deployed = deployment.batch(example), deployment.network(network)
        keys.append((deployment, way))
        runs.append(
            training_step(deployed, inputs, frozen(results.get(way)))
            if arguments.training
            else partial(deployed, inputs)
        )
    with torch.inference_mode(not arguments.training):
        times = interleaved(runs, example.device, block_seconds=0, warm_up=0.5, rounds=arguments.rounds)
        columns = {
            (deployment, way): column / deployment.batch_size
            for (deployment, way), column in zip(keys, times.T, strict=True)
        }
        for deployment in deployments:
            print(f"ResNet-50, images of {arguments.image} x {arguments.image}, {deployment}")
            show(networks, results, {way: columns[deployment, way] for way in networks}, example)
        if len(deployments) > 1:
            show_best(networks, columns)
        for (deployment, way), run in zip(keys, runs, strict=True) if arguments.profile else ():
            with profile() as recorded:
                run()
            print(way, deployment, recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=6), sep="\n")


def frozen(result: Compression | None) -> tuple[str, ...]:
    return () if result is None else tuple(frozen_factors(result.recipe, "published")(1))


def show(
    networks: dict[str, nn.Module],
    results: dict[str, Compression],
    columns: dict[str, np.ndarray],
    example: torch.Tensor,
) -> None:
    full = count_cost(networks["dense"], example)
    print(f"{'':18}{'params':>9}{'FLOPs':>9}{'ms/image':>10}{'speed-up':>10}{'spread':>8}{'predicted':>11}")
    for way, column in columns.items():
        cost, ratios = count_cost(networks[way], example), columns["dense"] / column
        predicted = results[way].report.get("predicted_speedup") if way in results else None
        print(
            f"{way:18}{100 * (cost.params / full.params - 1):+8.1f}%{100 * (cost.flops / full.flops - 1):+8.1f}%"
            f"{1000 * np.median(column):10.2f}{100 * (np.median(ratios) - 1):+9.1f}%"
            f"{100 * np.median(abs(ratios - np.median(ratios))):7.1f}%"
            + (f"{100 * (predicted - 1):+10.1f}%" if predicted else ""),
            flush=True,
        )


def show_best(networks: dict[str, nn.Module], columns: dict[tuple[Deployment, str], np.ndarray]) -> None:
    print("each under the settings that suit it best")
    fastest: dict[str, tuple[Deployment, np.ndarray]] = {}
    for way in networks:
        candidates = [(deployment, column) for (deployment, name), column in columns.items() if name == way]
        fastest[way] = min(candidates, key=lambda candidate: float(np.median(candidate[1])))
        speedup = np.median(fastest["dense"][1] / fastest[way][1])
        print(f"{way:18}{1000 * np.median(fastest[way][1]):10.2f}{100 * (speedup - 1):+9.1f}%  {fastest[way][0]}")


if __name__ == "__main__":
    main()
