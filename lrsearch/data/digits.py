"""scikit-learn's handwritten digits: real, small, and embedded, so that nothing is downloaded."""

from __future__ import annotations

from importlib.metadata import distribution

import numpy as np
import torch
from torch.utils.data import TensorDataset

from lrsearch.data.images import Normalization, ShiftAndFlip
from lrsearch.data.splits import Splits, stratified

_FRACTIONS = {"test": 0.2, "validation": 0.135, "calibration": 0.06}
_NORMALIZATION = Normalization((0.305,), (0.376,))


def digits(seed: int = 0) -> Splits:
    """1,797 grey images of 8x8 pixels in 10 classes.

    Of each class, 20 % are for testing, 13.5 % for validation and 6 % for calibration, drawn by ``seed``, and
    the rest for training: 359, 243, 107 and 1,088 images. Training images are shifted by up to one pixel.
    """
    table = _table()
    images = _NORMALIZATION(table[:, :-1].float().view(-1, 1, 8, 8) / 16)
    targets = table[:, -1].long()
    test, validation, calibration, train = (
        TensorDataset(images[part], targets[part]) for part in stratified(targets, list(_FRACTIONS.values()), seed)
    )
    augment = ShiftAndFlip(1, _NORMALIZATION.black, flip=False)
    return Splits("digits", train, calibration, validation, test, classes=10, augment=augment)


def _table() -> torch.Tensor:
    """Of each image the 64 pixels, from 0 to 16, and the class.

    The file is read here because scikit-learn's own function takes longer to import than a small trial takes to run.
    """
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    return torch.from_numpy(np.loadtxt(str(file), delimiter=",", dtype=np.uint8))
