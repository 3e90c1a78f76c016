"""scikit-learn's handwritten digits: real, small, and embedded, so that nothing is downloaded."""

from __future__ import annotations

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
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = _NORMALIZATION(torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16)
    targets = torch.from_numpy(labels).long()
    test, validation, calibration, train = (
        TensorDataset(images[part], targets[part]) for part in stratified(targets, list(_FRACTIONS.values()), seed)
    )
    augment = ShiftAndFlip(1, _NORMALIZATION.black, flip=False)
    return Splits("digits", train, calibration, validation, test, classes=10, augment=augment)
