"""Accuracy over compression of every method that needs no retraining, on a trained ResNet-20: one CSV, one picture.

Usage: python -m tests.benchmarks.resnet20_curve FOLDER [--methods alds_output,alds] [--removed 25,50,70]
       [--images 2500] [--test 10000] [--weights resnet20-12fca82f.th] [--data DIR]

Writes FOLDER/resnet20_curve.csv and FOLDER/resnet20_curve.png; methods whose rows are there are not run again.
Calibration inputs are training images, batch norm is corrected on the same. The authors' figures are those of their
own program on the same weights and all 10,000 test images.
"""

import argparse
import csv
import io
import tarfile
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from lrsearch.compression import compress_steps, drain, make_task
from lrsearch.data import Splits
from lrsearch.measure.cost import count_cost
from lrsearch.methods import load_method
from lrsearch.models import build_model
from tests.conftest import REAL_DATA

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {})
        for name in ("alds_output", "alds_plus", "alds", "alds_error", "alds_simple", "svd_error", "svd", "svd_energy")
    },
    **{name: (name, {}) for name in ("l_rank", "pca", "messi", "ft", "pfp", "tucker")},
    **{f"alds_plus of {kind}": ("alds_plus", {"kinds": [kind]}) for kind in ("tucker2", "tt", "cp")},
    "alds_plus of all kinds": ("alds_plus", {"kinds": ["svd", "tucker2", "tt", "cp"]}),
    "rene": ("rene", {"initial_step": 4, "factor": 4, "steps": 20}),
}
"""Row of the table -> method and hyperparameters; ``dlrt`` is not here because it trains."""
REMOVED = (25, 40, 50, 60, 70)
AUTHORS = {
    "resnet20_cifar10_jpeg.pt": {
        "authors' ALDS (15 seeds)": (86.77, 82.15, 63.44, 43.50, 21.69),
        "authors' ALDS+": (86.92, 83.09, 76.00, 50.57, 19.34),
    },
    "resnet20-12fca82f.th": {
        "authors' ALDS (15 seeds)": (77.97, 75.51, 56.61, 38.03, 23.96),
        "authors' ALDS+": (79.77, 77.86, 67.15, 38.24, 17.91),
        "authors' PCA": (74.29, 64.98, 54.89, 39.41, 23.98),
        "authors' SVD-Energy": (51.06, 12.67, 14.28, 10, 10),
        "authors' SVD": (50.51, 18.87, 12.20, 10, 10),
    },
}
"""Weights -> what they come to with so much removed."""
BATCH = 128
MEAN, DEVIATION = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

Labelled = tuple[Tensor, Tensor]
Row = tuple[str, int, float, float, float]


def read(archive: Path, count: int) -> tuple[Labelled, Labelled]:
    """The first ``count`` training images, balanced over classes, and all test images, normalised."""
    found: dict[str, dict[str, list[np.ndarray]]] = {"train": {}, "test": {}}
    with tarfile.open(archive) as tar:
        for member in tar:
            split, label = (*Path(member.name).parts[-3:-1], "", "")[:2]
            images = found.get(split, {}).setdefault(label, [])
            if member.isfile() and split in found and (split == "test" or len(images) < count // 10):
                file = tar.extractfile(member)
                images.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
    train, test = (stacked(found[split]) for split in ("train", "test"))
    order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(0))
    return (train[0][order], train[1][order]), test


def stacked(classes: dict[str, list[np.ndarray]]) -> Labelled:
    names = sorted(name for name in classes if classes[name])
    pixels = torch.from_numpy(np.stack([image for name in names for image in classes[name]]))
    labels = torch.tensor([label for label, name in enumerate(names) for _ in classes[name]])
    return (pixels.permute(0, 3, 1, 2).float() / 255 - MEAN) / DEVIATION, labels


def accuracy(model: torch.nn.Module, data: Labelled) -> float:
    with torch.inference_mode():
        predicted = torch.cat([model(part).argmax(1) for part in data[0].split(50)])
    return 100 * float((predicted == data[1]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--removed", default=",".join(map(str, REMOVED)))
    parser.add_argument("--images", type=int, default=2500, help="of calibration; the paper keeps 5 %% of 50,000")
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--weights", choices=tuple(AUTHORS), default="resnet20_cifar10_jpeg.pt")
    parser.add_argument("--data", type=Path, default=REAL_DATA)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "resnet20_curve.csv"
    rows = load(file) or [
        (name, removed, removed, value, 0.0)
        for name, values in AUTHORS[options.weights].items()
        for removed, value in zip(REMOVED, values, strict=True)
    ]
    model = build_model({"name": "resnet20", "weights": str(options.data / options.weights)})
    train, test = read(options.data / "cifar10.tar.xz", options.images)
    chosen = torch.randperm(len(test[0]), generator=torch.Generator().manual_seed(0))[: options.test]
    test = test[0][chosen], test[1][chosen]
    items = TensorDataset(*train)
    splits = Splits("cifar10 (JPEG)", items, items, items, items, classes=10)
    dense, whole = accuracy(model, test), count_cost(model, None).params
    print(f"dense {dense:.2f} % of {len(test[0])}", flush=True)
    asked = [int(text) for text in options.removed.split(",")]
    for name in options.methods.split(","):
        missing = [removed for removed in asked if (name, removed) not in {row[:2] for row in rows}]
        method, settings = METHODS[name]
        statistics = load_method(method).statistics(model, make_task(model, splits)) if missing else {}
        for removed in missing:
            started = time.monotonic()
            values = {"budget": {"params": 1 - removed / 100}, **settings}
            small = drain(compress_steps(model, method, values, make_task(model, splits), statistics)).model
            seconds = round(time.monotonic() - started, 2)
            cr_p = round(100 * (1 - count_cost(small, None).params / whole), 2)
            rows.append((name, removed, cr_p, round(accuracy(small, test), 2), seconds))
            print(*rows[-1], flush=True)
            write(file, rows)
    draw(options.folder / "resnet20_curve.png", rows, dense)
    print(f"{'removed':25s}", *(f"{removed:4d} %" for removed in REMOVED))
    reached = {row[:2]: f"{row[3]:6.2f}" for row in rows}
    for name in dict.fromkeys(row[0] for row in rows):
        print(f"{name:25s}", *(reached.get((name, removed), "     -") for removed in REMOVED))


def load(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        _, *lines = csv.reader(file)
    return [(name, int(removed), *map(float, rest)) for name, removed, *rest in lines]


def write(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "removed_percent", "cr_p", "accuracy", "seconds"])
        writer.writerows(rows)


def draw(path: Path, rows: list[Row], dense: float) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    axes.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
    axes.axhline(dense, color="0.5", linewidth=1, label="dense")
    for name in dict.fromkeys(row[0] for row in rows):
        points = [(row[1], row[3]) for row in rows if row[0] == name]
        ours = name in METHODS
        axes.plot(
            *zip(*points, strict=True), "o-" if ours else "x--", label=name, linewidth=3 if "output" in name else 1
        )
    axes.set(xlabel="parameters removed (%)", ylabel="accuracy (%)", title="ResNet-20, CIFAR-10 (JPEG), no retraining")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
