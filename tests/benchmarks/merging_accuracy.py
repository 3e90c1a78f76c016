"""Where retraining starts from: merged bottlenecks beside plainly pruned ones of the same width.

Usage: python tests/benchmarks/merging_accuracy.py [--alpha 2 4] [--epochs 0 1 3] [--seeds 3]

A residual network of bottlenecks is trained on the digits, its bottlenecks are made ``alpha`` times narrower in four
ways, and each network is retrained by the last epochs of the dense schedule; the table shows the mean test accuracy
over seeds. All four have the same layers, thus the same speed. ``pruning`` keeps the filters of largest norm (Li et
al. 2017), ``random`` starts the bottlenecks anew.
"""

import argparse
import copy

import torch
from torch import nn

from lrsearch.compression import compress
from lrsearch.data import Splits, load_data
from lrsearch.factorize import restructure
from lrsearch.factorize.bottlenecks import find_bottlenecks
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.gate import DeviceGate
from lrsearch.models.digits import digits_resnet
from lrsearch.recipe import Factorization, Recipe
from lrsearch.training import TrainingConfig, recalibrate_batch_norm, train

CPU = torch.device("cpu")
SCHEDULE = 12


def trained(model: nn.Module, splits: Splits, epochs: int, seed: int) -> float:
    """Trains by the last epochs of the schedule; returns test accuracy in percent."""
    config = TrainingConfig(epochs=epochs, schedule_epochs=SCHEDULE)
    for _ in train(model, splits, config, device=CPU, seed=seed, gate=DeviceGate(CPU)) if epochs else ():
        pass
    return evaluate(model.eval(), splits.batches("test", 1000), CPU, DeviceGate(CPU))["accuracy"]


def pruned(model: nn.Module, splits: Splits, recipe: Recipe) -> nn.Module:
    """The filters of largest norm in the first and the second convolution of each bottleneck."""
    small = copy.deepcopy(model)
    restructure(small, recipe.layers)
    for bottleneck in find_bottlenecks(model):
        first, middle, last = (model.get_submodule(name).weight.detach() for name in bottleneck.convs)
        kept = [
            largest(weight, recipe.layers[name])
            for weight, name in zip((first, middle), bottleneck.convs, strict=False)
        ]
        weights = first[kept[0]], middle[kept[1]][:, kept[0]], last[:, kept[1]]
        for name, weight in zip(bottleneck.convs, weights, strict=True):
            small.get_submodule(name).weight.data.copy_(weight)
        for name, chosen in zip(bottleneck.norms, kept, strict=True):
            state = model.get_submodule(name).state_dict()
            state = {key: value[chosen] if value.dim() else value for key, value in state.items()}
            small.get_submodule(name).load_state_dict(state)
    recalibrate_batch_norm(small, splits.batches("calibration", 64), CPU, reference=model)
    return small


def largest(weight: torch.Tensor, form: Factorization) -> torch.Tensor:
    return weight.flatten(1).norm(dim=1).topk(form.ranks[1]).indices.sort().values


def anew(model: nn.Module, recipe: Recipe) -> nn.Module:
    small = copy.deepcopy(model)
    restructure(small, recipe.layers)
    for name, form in recipe.layers.items():
        if form.kind == "pruned":
            small.get_submodule(name).reset_parameters()
    return small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpha", type=float, nargs="+", default=[2, 4])
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 1, 3])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    splits = load_data({"name": "digits"})
    found: dict[tuple[str, float, int], list[float]] = {}
    for seed in range(arguments.seeds):
        torch.manual_seed(seed)
        dense = digits_resnet(16, bottlenecks=True)
        print(f"seed {seed}: dense {trained(dense, splits, SCHEDULE, seed):.2f} %", flush=True)
        for alpha in arguments.alpha:
            for way, small in starts(dense, splits, alpha).items():
                for epochs in arguments.epochs:
                    accuracy = trained(copy.deepcopy(small), splits, epochs, seed)
                    found.setdefault((way, alpha, epochs), []).append(accuracy)
    print(f"{'':10}{'alpha':>6}" + "".join(f"{epochs:>7} ep." for epochs in arguments.epochs))
    for way, alpha in dict.fromkeys((way, alpha) for way, alpha, _ in found):
        means = [sum(found[way, alpha, epochs]) / arguments.seeds for epochs in arguments.epochs]
        print(f"{way:10}{alpha:>6g}" + "".join(f"{mean:>11.2f}" for mean in means))


def starts(dense: nn.Module, splits: Splits, alpha: float) -> dict[str, nn.Module]:
    merged = compress(dense, "tucker", data=splits, merge=True, alpha=alpha)
    by_weights = compress(dense, "tucker", example_input=splits.example_input(), merge=True, alpha=alpha).model
    recalibrate_batch_norm(by_weights, splits.batches("calibration", 64), CPU, reference=dense)
    recipe = merged.recipe
    return {
        "merging": merged.model,
        "no data": by_weights,
        "pruning": pruned(dense, splits, recipe),
        "random": anew(dense, recipe),
    }


if __name__ == "__main__":
    main()
