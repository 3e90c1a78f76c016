"""alds_output on a trained ResNet-20 (CIFAR-10) without retraining: better than the authors' own program by far."""

import pytest
import torch

from lrsearch.compression import compress_steps, drain, make_task
from lrsearch.methods import load_method
from lrsearch.models import build_model
from tests.benchmarks.resnet20_curve import AUTHORS, BATCH, REMOVED, accuracy, read
from tests.conftest import REAL_DATA

WEIGHTS = REAL_DATA / "resnet20_cifar10_jpeg.pt"
IMAGES = REAL_DATA / "cifar10.tar.xz"
LEAST = {50: 86.0, 70: 81.3}
"""Percent of parameters removed -> accuracy on a quarter of the test images, by one set of defaults."""
EVERY = 4


@pytest.mark.slow
@pytest.mark.skipif(not (WEIGHTS.exists() and IMAGES.exists()), reason="no real data on this machine")
def test_accuracy_without_retraining() -> None:
    model = build_model({"name": "resnet20", "weights": str(WEIGHTS)})
    train, (images, classes) = read(IMAGES, 640)
    test = images[::EVERY], classes[::EVERY]
    batches = list(zip(train[0].split(BATCH), torch.zeros(len(train[0])).split(BATCH), strict=True))
    statistics = load_method("alds_output").statistics(model, make_task(model, batches))
    for removed, least in LEAST.items():
        values = {"budget": {"params": 1 - removed / 100}}
        small = drain(compress_steps(model, "alds_output", values, make_task(model, batches), statistics)).model
        reached = accuracy(small, test)
        assert reached >= least
        assert reached > max(figures[REMOVED.index(removed)] for figures in AUTHORS[WEIGHTS.name].values())
