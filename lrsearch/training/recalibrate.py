"""Batch-norm statistics estimated anew, as a step after compression."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
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
    *,
    reference: nn.Module | None = None,
) -> None:
    """Replace the running statistics of every batch norm by their averages over ``batches``.

    With a ``reference``, the network that was compressed, its own statistics are kept and only corrected by what
    compression changed on these inputs: so that it matters little how many they are and that training saw them
    augmented. Means move by the difference. Variances are scaled by the square root of the ratio, half way between
    restoring the spread of the dense outputs and keeping what least squares shrinks for being uncertain.

    Compressed layers shift the distribution that the next batch norm was trained on; its statistics need
    inputs, no labels. Each batch counts by its number of images; all other modules (dropout) stay in eval
    mode. Batches of a single image have no variance and are left out; without any other nothing changes.

    Args:
        model: on ``device``; changed in place, left in its own mode.
        batches: (inputs, targets); targets are ignored.
        device: where the inputs are moved to.
        gate: each batch holds ``gate.work()``; None where nobody measures, or the caller holds it.
        reference: the dense network, on ``device`` too; left as it is. Its batch norms are found by name;
            those that have lost channels to pruning take the averages as they are.
    """
    if not any(True for _ in _norms(model)):
        return
    _average(model, batches, device, gate)
    if reference is None:
        return
    originals, there = dict(_norms(reference)), copy.deepcopy(reference)
    _average(there, batches, device, gate)
    for name, norm in _norms(model):
        if name in originals and originals[name].num_features == norm.num_features:
            _correct(norm, originals[name], there.get_submodule(name))


def _norms(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats and module.running_mean is not None:
            yield name, module


def _correct(norm: _BatchNorm, original: _BatchNorm, there: nn.Module) -> None:
    """From averages of both networks over the same inputs to corrected statistics of the original."""
    ratio = norm.get_buffer("running_var") / there.get_buffer("running_var").clamp_min(norm.eps)
    norm.get_buffer("running_mean").add_(original.get_buffer("running_mean") - there.get_buffer("running_mean"))
    norm.get_buffer("running_var").copy_(original.get_buffer("running_var") * ratio.sqrt())


def _average(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device, gate: DeviceGate | None
) -> None:
    norms = [norm for _, norm in _norms(model)]
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
