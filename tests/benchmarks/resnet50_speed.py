"""How much faster ResNet-50 becomes at half its size, on this machine: every way of Tucker's side by side.

Usage: python tests/benchmarks/resnet50_speed.py [--batch 8] [--image 160] [--rounds 15] [--contiguous]
           [--only vanilla optimised ...]

Weights are random: time does not depend on them. All networks and the dense one are timed in rounds of random order,
channels last unless told otherwise; the speed-up is the median over rounds of dense time / time.
"""

import argparse
from functools import partial

import numpy as np
import torch
import torchvision

from lrsearch import compress
from lrsearch.measure.cost import count_cost
from lrsearch.measure.deployment import Deployment
from lrsearch.measure.interleave import interleaved

WAYS = {
    "vanilla": {"alpha": 2.0},
    "optimised ranks": {"alpha": 2.0, "optimise_ranks": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--contiguous", action="store_true", help="channels first")
    parser.add_argument("--only", nargs="*", choices=WAYS, default=list(WAYS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    deployment = Deployment(arguments.batch, channels_last=not arguments.contiguous)
    dense, example = torchvision.models.resnet50().eval(), torch.randn(1, 3, arguments.image, arguments.image)
    results = {
        way: compress(dense, "tucker", example_input=example, deployment=deployment, **WAYS[way])
        for way in arguments.only
    }
    networks = {"dense": dense, **{way: result.model for way, result in results.items()}}
    inputs = deployment.batch(example)
    with torch.inference_mode():
        runs = [partial(deployment.network(network), inputs) for network in networks.values()]
        times = interleaved(runs, inputs.device, block_seconds=0, warm_up=0.5, rounds=arguments.rounds)
    full = count_cost(dense, example)
    print(f"ResNet-50, batch {arguments.batch} of {arguments.image} x {arguments.image}, {deployment}")
    print(f"{'':18}{'params':>10}{'FLOPs':>9}{'speed-up':>10}{'spread':>8}{'predicted':>11}")
    for (way, network), column in zip(networks.items(), times.T, strict=True):
        cost, ratios = count_cost(network, example), times[:, 0] / column
        spread = np.median(abs(ratios - np.median(ratios)))
        predicted = results[way].report.get("predicted_speedup") if way in results else None
        print(
            f"{way:18}{100 * (cost.params / full.params - 1):+9.1f}%{100 * (cost.flops / full.flops - 1):+8.1f}%"
            f"{100 * (np.median(ratios) - 1):+9.1f}%{100 * spread:7.1f}%"
            + (f"{100 * (predicted - 1):+10.1f}%" if predicted else "")
        )


if __name__ == "__main__":
    main()
