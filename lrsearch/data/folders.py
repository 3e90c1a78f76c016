"""Image folders: one folder per class, below one folder per split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrsearch.data.images import IMAGENET, ImageFiles, Normalization, ShiftAndFlip
from lrsearch.data.splits import HELD_OUT, Splits, stratified
from lrsearch.errors import LrsearchError

Files = list[tuple[str, int]]


def imagefolder(
    root: str,
    *,
    size: int | None = None,
    mean: Sequence[float] = IMAGENET.mean,
    std: Sequence[float] = IMAGENET.std,
    seed: int = 0,
    num_workers: int = 0,
) -> Splits:
    """Colour images in ``root``/train/CLASS and ``root``/test/CLASS (or ``root``/val/CLASS).

    Their shorter side is scaled to ``size`` and the centre cropped; without ``size`` all images must have the
    same size already. Training images are shifted by up to an eighth of their side and mirrored.
    """
    from torchvision.transforms import v2

    normalization = Normalization.checked(mean, std, channels=3)
    train, test, classes = _listed(Path(root).expanduser(), ("test", "val"))
    resize = [] if size is None else [v2.Resize(size), v2.CenterCrop(size)]
    transform = v2.Compose([*resize, v2.PILToTensor(), _scaled, normalization])
    calibration, validation, remaining = _cut(train, seed)
    side = min(ImageFiles(train, transform)[0][0].shape[1:])
    return Splits(
        "imagefolder",
        train=ImageFiles(remaining, transform),
        calibration=ImageFiles(calibration, transform),
        validation=ImageFiles(validation, transform),
        test=ImageFiles(test, transform),
        classes=classes,
        augment=ShiftAndFlip(max(1, side // 8), normalization.black, flip=True),
        num_workers=num_workers,
    )


def imagenet(root: str, size: int = 224, seed: int = 0, num_workers: int = 2) -> Splits:
    """ImageNet's images in ``root``/train/WNID and ``root``/val/WNID, classes in the order of their names.

    Training images are cropped at random in place and scale and mirrored; all others are scaled to 256/224 of
    ``size`` and the centre cropped (ALDS supplement, B.2).
    """
    from torchvision.transforms import v2

    to_input = [v2.PILToTensor(), _scaled, IMAGENET]
    transform = v2.Compose([v2.Resize(size * 256 // 224), v2.CenterCrop(size), *to_input])
    augmentation = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *to_input])
    train, test, classes = _listed(Path(root).expanduser(), ("val",))
    calibration, validation, remaining = _cut(train, seed)
    return Splits(
        "imagenet",
        train=ImageFiles(remaining, transform, augmentation),
        calibration=ImageFiles(calibration, transform),
        validation=ImageFiles(validation, transform),
        test=ImageFiles(test, transform),
        classes=classes,
        num_workers=num_workers,
    )


def _scaled(pixels: Tensor) -> Tensor:
    return pixels.float() / 255


def _cut(files: Files, seed: int) -> list[Files]:
    targets = torch.tensor([target for _, target in files])
    return [[files[index] for index in part.tolist()] for part in stratified(targets, HELD_OUT, seed)]


def _listed(root: Path, test_names: tuple[str, ...]) -> tuple[Files, Files, int]:
    """The files of the training and the test split, and the number of classes."""
    expected = f"class folders of images in {root}/train and {' or '.join(f'{root}/{name}' for name in test_names)}"
    test_folder = next((root / name for name in test_names if (root / name).is_dir()), root / test_names[0])
    train, test = (_image_folder(folder, expected) for folder in (root / "train", test_folder))
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[0]
        raise LrsearchError(f"data.root: class {odd!r} is in only one of {root}/train and {test_folder}")
    return train.samples, test.samples, len(train.classes)


def _image_folder(folder: Path, expected: str) -> Any:
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(folder)
    except OSError as error:
        problem = str(error).splitlines()[0] if folder.is_dir() else f"folder {folder} does not exist"
        raise LrsearchError(f"data.root: {problem}; expected {expected}") from error
