"""Low-rank training of a trained ResNet-20 on CIFAR-10 (JPEG): accuracy and ranks over a few epochs.

Usage: python -m tests.benchmarks.dlrt_resnet20 FOLDER [--images 5000] [--tau 0.15] [--epochs 3] [--device cuda]
       [--data DIR]

On a CPU this is a subset of the training images and few epochs: it shows that nothing collapses, not how far low-rank
training gets. Accuracies are of 2,000 test images. Writes FOLDER/ranks.png.
"""

import argparse
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from lrsearch.data import Splits
from lrsearch.data.images import IMAGENET, ShiftAndFlip
from lrsearch.measure.cost import count_cost
from lrsearch.methods import load_method, parse_hyperparameters
from lrsearch.methods.base import Compressed, Task
from lrsearch.models import build_model
from lrsearch.tracking.rank_picture import write_ranks
from tests.benchmarks.resnet20_curve import accuracy, read
from tests.conftest import REAL_DATA


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--tau", type=float, default=0.15)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data", type=Path, default=REAL_DATA)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    model = build_model({"name": "resnet20", "weights": str(options.data / "resnet20_cifar10_jpeg.pt")}).to(device)
    train, (images, labels) = read(options.data / "cifar10.tar.xz", options.images)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:2000]
    test = images[chosen].to(device), labels[chosen].to(device)
    items, augment = TensorDataset(*train), ShiftAndFlip(4, IMAGENET.black, flip=True)
    splits = Splits("cifar10 (JPEG)", items, items, items, items, classes=10, augment=augment).on(device)
    values = {"tau": options.tau, "lr": options.lr, "adaptive_epochs": options.epochs, "fine_tuning_epochs": 1}
    whole = count_cost(model, None).params
    print(f"dense {accuracy(model, test):.2f} %", flush=True)
    untrained = compressed(model, splits, {**values, "adaptive_epochs": 0, "fine_tuning_epochs": 0})
    print(f"truncated at tau {options.tau}, untrained: {accuracy(untrained.model, test):.2f} %", flush=True)
    found = compressed(model, splits, values)
    removed = 100 * (1 - count_cost(found.model, None).params / whole)
    print(f"trained: {accuracy(found.model, test):.2f} %, {removed:.1f} % of parameters removed")
    print("train accuracy of each epoch", " ".join(f"{value:.1f}" for value in found.history["train_accuracy"]))
    for name, ranks in found.history["ranks"].items():
        print(f"{name:18s} {untrained.recipe.layers[name].ranks[0]:3d} ->", *ranks)
    write_ranks(options.folder / "ranks.png", found.history)


def compressed(model: torch.nn.Module, splits: Splits, values: dict[str, float]) -> Compressed:
    device = next(model.parameters()).device
    task = Task(device=device, example_input=splits.example_input().to(device), splits=splits)
    steps = load_method("dlrt").compress(model, task, parse_hyperparameters("dlrt", values), {})
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            return stop.value
        if progress.done % 100 == 0:
            print(f"step {progress.done} of {progress.total}", flush=True)


if __name__ == "__main__":
    main()
