"""Time and peak memory of RENE's search on ResNet-18, candidates sliced from one factorization or each stored alone.

Usage: python tests/benchmarks/rene_memory.py [--steps 1] [--image 64] [--layers layer4]

The grid is that of the paper's ImageNet experiments, 17 candidates of rank 50 to 850 for each k x k convolution. The
straightforward way has a tensor train for each candidate, mixes them, and lets autograd do the rest; both train
factors by eq. 6 (objective ``paper``), in single steps of either kind; ``branch`` is the default, which has no factors
to train. The straightforward way is spared its 17 decompositions of each layer: it copies slices of one. Each side runs
in a process of its own; memory is what its resident set grows by from the dense network to the peak.

Measured on the whole network with ``--image 32``, two cores, other work beside it: one per candidate 4,687 MiB and 26 s
for a step; sliced 507 MiB (9.2 times less) and 1.8 s; sliced with ``branch`` 322 MiB (14.6 times less) and 1.0 s.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from resident_memory import resident_memory
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lrsearch.factorize import LayerShape, find_layers
from lrsearch.factorize.stages import max_tucker_ranks
from lrsearch.factorize.tucker import tucker2_weights
from lrsearch.methods.rene_search.candidate_weights import TrainSlices
from lrsearch.methods.rene_search.stage import Choice, Settings, Stage
from lrsearch.models import build_model

GRID = list(range(50, 851, 50))
SIDES = ("one per candidate", "sliced", "sliced, branch")
Step = Callable[[tuple[Tensor, Tensor]], None]


def sliced(model: nn.Module, layers: dict[str, LayerShape], objective: str) -> Step:
    choices = {}
    for name, shape in layers.items():
        candidates = TrainSlices(model.get_submodule(name).get_parameter("weight"), shape, GRID)
        choices[name] = Choice(candidates, GRID[-1], torch.zeros(len(GRID), 1))
    settings = Settings("tt", objective, "paper", beta=0.8, gamma=0.4, lr=0.01, lr_alpha=1.0, recalibrate=False)
    stage = Stage(model, choices, settings)

    def step(batch: tuple[Tensor, Tensor]) -> None:
        stage.fit()
        stage.choose(batch)

    return step


def one_per_candidate(model: nn.Module, layers: dict[str, LayerShape]) -> Step:
    weights = {name: model.get_submodule(name).get_parameter("weight").detach() for name in layers}
    trains, alpha = {}, {}
    for name, shape in layers.items():
        limits = max_tucker_ranks(shape)
        first, core, last = tucker2_weights(weights[name], 1, *limits)
        pairs = [[min(rank, limit) for limit in limits] for rank in GRID]
        parts = [(first[:r1], core[:r2, :r1], last[:, :r2]) for r1, r2 in pairs]
        trains[name] = [[part.clone().requires_grad_() for part in train] for train in parts]
        alpha[name] = torch.zeros(len(GRID), requires_grad=True)
    factors = [part for candidates in trains.values() for train in candidates for part in train]
    factor_optimizer = torch.optim.SGD(factors, lr=0.01, momentum=0.9, nesterov=True)
    alpha_optimizer = torch.optim.SGD(alpha.values(), lr=1.0, momentum=0.9, nesterov=True)
    ranks = torch.tensor(GRID, dtype=torch.float32)

    def mixture(name: str) -> Tensor:
        whole = [torch.einsum("sr,rqhw,qc->schw", c[..., 0, 0], b, a[..., 0, 0]) for a, b, c in trains[name]]
        return (alpha[name].softmax(0)[:, None, None, None, None] * torch.stack(whole)).sum(0)

    def rank_loss() -> Tensor:
        return sum(((a.softmax(0) * ranks).sum() / ranks[-1]) ** 0.8 for a in alpha.values())

    def step(batch: tuple[Tensor, Tensor]) -> None:
        factor_optimizer.zero_grad()
        losses = [((weights[n] - mixture(n)) ** 2).sum() / (weights[n] ** 2).sum() for n in layers]
        (sum(losses) * rank_loss().detach()).backward()
        factor_optimizer.step()
        alpha_optimizer.zero_grad()
        mixed = {f"{name}.weight": mixture(name) for name in layers}
        loss = cross_entropy(functional_call(model, mixed, (batch[0],)), batch[1])
        (loss * 0.4 * rank_loss()).backward()
        alpha_optimizer.step()

    return step


def measure(side: str, options: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model({"name": "resnet18"}).eval().requires_grad_(False)
    found, _ = find_layers(model)
    layers = {n: shape for n, shape in found.items() if shape.kernel != (1, 1) and n.startswith(options.layers)}
    batch = torch.randn(2, 3, options.image, options.image), torch.tensor([0, 1])
    with torch.no_grad():
        model(batch[0])
    before, started = resident_memory(), time.perf_counter()
    if side == SIDES[0]:
        step = one_per_candidate(model, layers)
    else:
        step = sliced(model, layers, "paper" if side == "sliced" else "branch")
    decomposed = time.perf_counter()
    for _ in range(options.steps):
        step(batch)
    ended = time.perf_counter()
    steps = (ended - decomposed) / options.steps
    return {"decompose": decomposed - started, "step": steps, "memory": (resident_memory("VmHWM") - before) / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--image", type=int, default=64)
    parser.add_argument("--layers", default="", help="only those whose names begin so, such as layer4")
    parser.add_argument("--side", choices=SIDES, help="measure this one alone, in this process")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options)))
        return
    results = {}
    for side in SIDES:
        command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
        results[side] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    first = results[SIDES[0]]
    print(f"{'':20}{'decompose s':>12}{'step s':>9}{'memory MiB':>12}{'less memory':>13}{'faster step':>13}")
    for side, found in results.items():
        ratios = f"{first['memory'] / found['memory']:12.1f}x{first['step'] / found['step']:12.1f}x"
        print(f"{side:20}{found['decompose']:12.1f}{found['step']:9.2f}{found['memory']:12.0f}{ratios}")


if __name__ == "__main__":
    main()
