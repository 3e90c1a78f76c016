"""Accuracy over compression of every method that needs no retraining, on a trained ResNet-20: one CSV, one picture.

Usage: python tests/benchmarks/resnet20_curve.py FOLDER [--methods alds_output,alds] [--images 2500] [--data DIR]

Writes FOLDER/resnet20_curve.csv and FOLDER/resnet20_curve.png. Calibration inputs are training images, batch norm
is corrected on the same; accuracies are of the 10,000 test images. The authors' figures are those of their own
program on the same weights and images.
"""

import argparse
import csv
import io
import tarfile
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lrsearch.compression import compress_steps, drain, make_task
from lrsearch.measure.cost import count_cost
from lrsearch.methods import load_method
from lrsearch.models import build_model
from tests.conftest import REAL_DATA

METHODS = (
    "alds_output",
    "alds_plus",
    "alds",
    "alds_error",
    "alds_simple",
    "svd_error",
    "svd",
    "svd_energy",
    "l_rank",
    "pca",
    "messi",
    "ft",
    "pfp",
    "tucker",
)
REMOVED = (25, 40, 50, 60, 70)
AUTHORS = {
    "authors' ALDS (15 seeds)": (86.77, 82.15, 63.44, 43.50, 21.69),
    "authors' ALDS+": (86.92, 83.09, 76.00, 50.57, 19.34),
}
BATCH = 128
MEAN, DEVIATION = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

Labelled = tuple[Tensor, Tensor]


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
    parser.add_argument("--images", type=int, default=2500, help="of calibration; the paper keeps 5 %% of 50,000")
    parser.add_argument("--data", type=Path, default=REAL_DATA)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model = build_model({"name": "resnet20", "weights": str(options.data / "resnet20_cifar10_jpeg.pt")})
    train, test = read(options.data / "cifar10.tar.xz", options.images)
    batches = list(zip(train[0].split(BATCH), train[1].split(BATCH), strict=True))
    dense, whole = accuracy(model, test), count_cost(model, None).params
    print(f"dense {dense:.2f}", flush=True)
    rows = [
        (name, removed, removed, value, "")
        for name, values in AUTHORS.items()
        for removed, value in zip(REMOVED, values, strict=True)
    ]
    for method in options.methods.split(","):
        started = time.monotonic()
        statistics = load_method(method).statistics(model, make_task(model, batches))
        print(f"{method}: statistics in {time.monotonic() - started:.1f} s", flush=True)
        for removed in REMOVED:
            started = time.monotonic()
            values = {"budget": {"params": 1 - removed / 100}}
            small = drain(compress_steps(model, method, values, make_task(model, batches), statistics)).model
            seconds = time.monotonic() - started
            cr_p = 100 * (1 - count_cost(small, None).params / whole)
            rows.append((method, removed, round(cr_p, 2), round(accuracy(small, test), 2), round(seconds, 2)))
            print(*rows[-1], flush=True)
            write(options.folder / "resnet20_curve.csv", rows)
        draw(options.folder / "resnet20_curve.png", rows, dense)


def write(path: Path, rows: list[tuple]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "removed_percent", "cr_p", "accuracy", "seconds"])
        writer.writerows(rows)


def draw(path: Path, rows: list[tuple], dense: float) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    axes.axhline(dense, color="0.5", linewidth=1, label="dense")
    for name in dict.fromkeys(row[0] for row in rows):
        points = [(row[1], row[3]) for row in rows if row[0] == name]
        ours = name not in AUTHORS
        axes.plot(
            *zip(*points, strict=True), "o-" if ours else "x--", label=name, linewidth=3 if "output" in name else 1
        )
    axes.set(xlabel="parameters removed (%)", ylabel="accuracy (%)", title="ResNet-20, CIFAR-10 (JPEG), no retraining")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
