"""Torchvision's small data sets, read from a local folder into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrsearch.data.images import ImageTensors, Normalization, ShiftAndFlip
from lrsearch.data.splits import HELD_OUT, Splits, stratified
from lrsearch.errors import LrsearchError


@dataclass(frozen=True)
class _Source:
    """A data set of torchvision: its name here, its class there, and the files that class reads."""

    name: str
    dataset: str
    layout: str


_CIFAR10 = _Source("cifar10", "CIFAR10", "cifar-10-batches-py with data_batch_1 to data_batch_5 and test_batch")
_CIFAR100 = _Source("cifar100", "CIFAR100", "cifar-100-python with train and test")
_IDX = "with train-images-idx3-ubyte, t10k-images-idx3-ubyte and their labels"
_MNIST = _Source("mnist", "MNIST", f"MNIST/raw {_IDX}")
_FASHION_MNIST = _Source("fashion_mnist", "FashionMNIST", f"FashionMNIST/raw {_IDX}")


def cifar10(
    root: str,
    seed: int = 0,
    mean: Sequence[float] = (0.4914, 0.4822, 0.4465),
    std: Sequence[float] = (0.2470, 0.2435, 0.2616),
) -> Splits:
    """CIFAR-10 in ``root``/cifar-10-batches-py; training images are shifted by up to 4 pixels and mirrored.

    ``mean`` and ``std`` are those that the network was trained with; the default is the data set's.
    """
    normalization = Normalization.checked(mean, std, channels=3)
    return _splits(_CIFAR10, root, seed, normalization, ShiftAndFlip(4, normalization.black, flip=True))


def cifar100(
    root: str,
    seed: int = 0,
    mean: Sequence[float] = (0.5071, 0.4865, 0.4409),
    std: Sequence[float] = (0.2673, 0.2564, 0.2762),
) -> Splits:
    """CIFAR-100 in ``root``/cifar-100-python; otherwise as CIFAR-10."""
    normalization = Normalization.checked(mean, std, channels=3)
    return _splits(_CIFAR100, root, seed, normalization, ShiftAndFlip(4, normalization.black, flip=True))


def mnist(root: str, seed: int = 0) -> Splits:
    """MNIST in ``root``/MNIST/raw; training images are shifted by up to 2 pixels."""
    normalization = Normalization((0.1307,), (0.3081,))
    return _splits(_MNIST, root, seed, normalization, ShiftAndFlip(2, normalization.black, flip=False))


def fashion_mnist(root: str, seed: int = 0) -> Splits:
    """Fashion-MNIST in ``root``/FashionMNIST/raw; otherwise as MNIST, training images mirrored too."""
    normalization = Normalization((0.2860,), (0.3530,))
    return _splits(_FASHION_MNIST, root, seed, normalization, ShiftAndFlip(2, normalization.black, flip=True))


def _splits(source: _Source, root: str, seed: int, normalization: Normalization, augment: ShiftAndFlip) -> Splits:
    images, targets = _read(source, Path(root).expanduser(), train=True)
    calibration, validation, train = (
        ImageTensors(images[part], targets[part], normalization) for part in stratified(targets, HELD_OUT, seed)
    )
    test = ImageTensors(*_read(source, Path(root).expanduser(), train=False), normalization)
    classes = int(targets.max()) + 1
    return Splits(source.name, train, calibration, validation, test, classes=classes, augment=augment)


def _read(source: _Source, folder: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) as bytes, and targets (N,)."""
    import torchvision

    try:
        found: Any = getattr(torchvision.datasets, source.dataset)(folder, train=train, download=False)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        problem = f"holds no intact {source.name}" if folder.is_dir() else "does not exist"
        raise LrsearchError(
            f"data.root: folder {folder} {problem}, expected {folder}/{source.layout}; nothing is downloaded"
        ) from error
    images = torch.as_tensor(found.data)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return images, torch.as_tensor(found.targets)
