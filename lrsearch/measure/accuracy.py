"""Accuracy of a classifier."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.modes import evaluation_mode


def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device, gate: DeviceGate
) -> float:
    """Top-1 accuracy in percent; NaN where there is no image.

    Args:
        model: on ``device``; evaluated in eval mode, left in its own.
        batches: (inputs, targets), targets the classes' numbers of shape (N,).
        device: where the inputs are moved to.
        gate: each batch is read and evaluated within ``gate.work()``.
    """
    correct, images = 0, 0
    remaining = iter(batches)
    with evaluation_mode(model), torch.inference_mode():
        while True:
            with gate.work():
                batch = next(remaining, None)
                if batch is None:
                    break
                inputs, targets = batch
                predicted = model(inputs.to(device)).argmax(1)
                correct += int((predicted == targets.to(device)).sum())
                images += len(targets)
    return 100 * correct / images if images else float("nan")
