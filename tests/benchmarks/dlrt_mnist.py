"""Low-rank training of the paper's five-layer perceptron on MNIST's 10,000 test images, beside dense and plain factors.

Usage: python -m tests.benchmarks.dlrt_mnist FOLDER [--taus 0.05,0.15] [--seeds 0,1,2] [--epochs 20] [--data DIR]

All from scratch, on 8,000 images, tested on 1,000; the same optimizer, learning rate and number of epochs for all.
``factors`` trains W = U V^T by plain gradient descent at the ranks low-rank training ended with, from the usual
initialisation of two layers; where that diverges, at half the learning rate, and so on. Then the robustness of the two
to the start: both from a network whose singular values decay exponentially. Writes FOLDER/dlrt_decay.png.
"""

import argparse
import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from lrsearch.compression import drain
from lrsearch.data import Splits
from lrsearch.errors import TrialFailedError
from lrsearch.factorize import factorize_layer, replace_layers, restructure
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.cost import count_cost
from lrsearch.measure.gate import DeviceGate
from lrsearch.methods import load_method, parse_hyperparameters
from lrsearch.methods.base import Compressed, Task
from lrsearch.methods.one_shot.candidates import svd
from lrsearch.models import build_model
from lrsearch.training import TrainingConfig, train
from lrsearch.training.dlrt import LowRankTraining, Phase, low_rank
from tests.benchmarks.mnist10k import mnist10k
from tests.conftest import REAL_DATA

CPU = torch.device("cpu")
GATE = DeviceGate("cpu")
DECAY_RANK = 40


@dataclass(frozen=True)
class Setting:
    """What all trainings share."""

    splits: Splits
    epochs: int
    lr: float

    def config(self) -> TrainingConfig:
        return TrainingConfig(epochs=self.epochs, lr=self.lr)

    def train_plain(self, model: nn.Module, seed: int) -> list[float]:
        """Losses of the epochs."""
        return [epoch.loss for epoch in train(model, self.splits, self.config(), device=CPU, seed=seed, gate=GATE)]

    def accuracy(self, model: nn.Module) -> float:
        return evaluate(model, self.splits.batches("test", 500), CPU, GATE)["accuracy"]


def fresh(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model({"name": "mnist_mlp"})


def low_rank_run(setting: Setting, tau: float, seed: int) -> Compressed:
    values = {
        "tau": tau,
        "start": "scratch",
        "lr": setting.lr,
        "adaptive_epochs": setting.epochs - 2,
        "fine_tuning_epochs": 2,
        "initial_rank": 100,
        "warmup_steps": 125,
        "truncate_every": 20,
    }
    task = Task(
        example_input=setting.splits.example_input(),
        splits=setting.splits,
        generator=torch.Generator().manual_seed(seed),
    )
    return drain(load_method("dlrt").compress(fresh(seed), task, parse_hyperparameters("dlrt", values), {}))


def compare(setting: Setting, taus: list[float], seeds: list[int]) -> None:
    print("network  tau   seed  test %  removed %  worst fall between epochs (train %)  ranks", flush=True)
    accuracies: dict[str, list[float]] = {}
    for seed in seeds:
        dense = fresh(seed)
        setting.train_plain(dense, seed)
        tell(accuracies, "dense", "", seed, setting.accuracy(dense), 0.0, "")
        for tau in taus:
            found = low_rank_run(setting, tau, seed)
            course = found.history["train_accuracy"]
            fall = max([0.0, *(a - b for a, b in pairwise(course))])
            removed = 100 * (1 - count_cost(found.model, None).params / count_cost(dense, None).params)
            ranks = "/".join(str(ranks[-1]) for ranks in found.history["ranks"].values())
            tell(accuracies, "dlrt", str(tau), seed, setting.accuracy(found.model), removed, f"{fall:.1f}  {ranks}")
            factors, lr = train_factors(setting, found, seed)
            tell(accuracies, "factors", str(tau), seed, setting.accuracy(factors), removed, f"learning rate {lr:g}")
    for name, each in accuracies.items():
        print(f"{name:14s} mean {mean(each):.2f}, {mean(each) - mean(accuracies['dense ']):+.2f} against dense")


def train_factors(setting: Setting, found: Compressed, seed: int) -> tuple[nn.Module, float]:
    """Two plain layers for each, of the ranks found, and the learning rate at which they could be trained."""
    factors = fresh(seed)
    restructure(factors, found.recipe.layers)
    for module in factors.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    try:
        setting.train_plain(factors, seed)
    except TrialFailedError:
        return train_factors(replace(setting, lr=setting.lr / 2), found, seed)
    return factors, setting.lr


def tell(known: dict[str, list[float]], name: str, tau: str, seed: int, test: float, removed: float, rest: str) -> None:
    known.setdefault(f"{name} {tau}", []).append(test)
    print(f"{name:8s} {tau:5s} {seed:4d} {test:7.2f} {removed:9.1f}   {rest}", flush=True)


def decaying(rate: float) -> nn.Module:
    """The network with singular values e^(-rate j) times the largest initial one, in all layers but the last."""
    model = fresh(0)
    for module in list(model.modules())[:-1]:
        if isinstance(module, nn.Linear):
            left, values, right = torch.linalg.svd(module.weight.detach(), full_matrices=False)
            kept = values[0] * torch.exp(-rate * torch.arange(len(values)))
            module.weight.data = (left * kept) @ right
    return model


def robustness(setting: Setting, rates: list[float]) -> dict[str, list[float]]:
    """Losses of both kinds of training over the epochs, from starts of ever faster decay, at rank ``DECAY_RANK``."""
    courses = {}
    for rate in rates:
        start = decaying(rate)
        names = [name for name, module in start.named_modules() if isinstance(module, nn.Linear)][:-1]
        factors = copy.deepcopy(start)
        layers = {name: factorize_layer(start.get_submodule(name), svd(0, 1, DECAY_RANK)) for name in names}
        replace_layers(factors, layers)
        courses[f"U V^T, decay {rate:g}"] = setting.train_plain(factors, 0)
        network = copy.deepcopy(start)
        moving = {name: low_rank(start.get_submodule(name), DECAY_RANK) for name in names}
        replace_layers(network, moving)
        training = LowRankTraining(network, moving, setting.splits, setting.config(), CPU, 0)
        for _ in training.run(Phase(0, setting.epochs, "bug", truncate_every=20)):
            pass
        courses[f"dlrt, decay {rate:g}"] = training.history.loss
    return courses


def draw(path: Path, courses: dict[str, list[float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, losses in courses.items():
        axes.plot(range(1, len(losses) + 1), losses, "-" if name.startswith("dlrt") else "--", label=name)
    axes.set(xlabel="epoch", ylabel="training loss", yscale="log", title="Starts with decaying singular values")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--taus", default="0.05,0.15")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--decays", default="0.2,0.5")
    parser.add_argument("--data", type=Path, default=REAL_DATA / "mnist10k")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    setting = Setting(mnist10k(options.data), options.epochs, options.lr)
    seeds = [int(seed) for seed in options.seeds.split(",") if seed]
    if seeds:
        compare(setting, [float(tau) for tau in options.taus.split(",")], seeds)
    courses = robustness(setting, [float(rate) for rate in options.decays.split(",") if rate])
    for name, losses in courses.items():
        print(f"{name:22s} loss of each epoch", " ".join(f"{loss:.3f}" for loss in losses))
    draw(options.folder / "dlrt_decay.png", courses)


if __name__ == "__main__":
    main()
