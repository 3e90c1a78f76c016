"""Batch-norm statistics estimated anew, as a step after compression."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.modes import evaluation_mode


def recalibrate_batch_norm(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    gate: DeviceGate | None = None,
) -> None:
    """Replace the running statistics of every batch norm by their averages over ``batches``.

    Compressed layers shift the distribution that the next batch norm was trained on; its statistics need
    inputs, no labels. Each batch counts by its number of images; all other modules (dropout) stay in eval
    mode. Batches of a single image have no variance and are left out; without any other nothing changes.

    Args:
        model: on ``device``; changed in place, left in its own mode.
        batches: (inputs, targets); targets are ignored.
        device: where the inputs are moved to.
        gate: each batch holds ``gate.work()``; None where nobody measures, or the caller holds it.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and module.running_mean is not None
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    images = 0
    remaining = iter(batches)
    try:
        with evaluation_mode(model), torch.no_grad():
            for norm in norms:
                norm.train()
            while True:
                with gate.work() if gate is not None else nullcontext():
                    batch = next(remaining, None)
                    if batch is None:
                        break
                    images = _average_in(model, norms, batch[0].to(device), images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _average_in(model: nn.Module, norms: list[_BatchNorm], inputs: Tensor, images: int) -> int:
    """Run one batch; returns the number of images that the statistics now cover."""
    if len(inputs) < 2:
        return images
    if images == 0:
        for norm in norms:
            norm.reset_running_stats()
    images += len(inputs)
    for norm in norms:
        norm.momentum = len(inputs) / images
    model(inputs)
    return images
