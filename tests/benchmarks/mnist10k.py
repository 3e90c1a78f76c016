"""MNIST's 10,000 test images as a small data set of its own: 8,000 to train, 1,000 to validate, 1,000 to test."""

import gzip
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lrsearch.data import Splits
from lrsearch.data.splits import stratified


def mnist10k(root: Path | str, seed: int = 0) -> Splits:
    """Split by class; the calibration split is the first 500 training images. Nothing is augmented."""
    images = read(Path(root) / "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28).float() / 255
    targets = read(Path(root) / "t10k-labels-idx1-ubyte.gz", 8).long()
    images = (images - 0.1307) / 0.3081
    validation, test, train = (
        TensorDataset(images[part], targets[part]) for part in stratified(targets, (0.1, 0.1), seed)
    )
    calibration = TensorDataset(*train[:500])
    return Splits("mnist10k", train, calibration, validation, test, classes=10)


def read(path: Path, header: int) -> Tensor:
    with gzip.open(path) as file:
        return torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8)
