"""How good a network's answers are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lrsearch.data.scores import Score, top1
from lrsearch.errors import LrsearchError
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.modes import evaluation_mode


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    gate: DeviceGate,
    score: Score = top1,
) -> dict[str, float]:
    """Judge a network's answers; the metrics are NaN where there is no image.

    Args:
        model: on ``device``, giving logits (N, classes, ...); evaluated in eval mode, left in its own.
        batches: (inputs, targets), targets the classes' numbers of shape (N, ...); negative ones do not count.
        device: where the inputs are moved to.
        gate: each batch is read and evaluated within ``gate.work()``.
        score: how the data set judges (``Splits.score``).

    Raises:
        LrsearchError: a target is of a class that the network does not know.
    """
    confusion = torch.zeros(0, 0, dtype=torch.long)
    remaining = iter(batches)
    with evaluation_mode(model), torch.inference_mode():
        while True:
            with gate.work():
                batch = next(remaining, None)
                if batch is None:
                    break
                inputs, targets = batch
                counts = _confusion(model(inputs.to(device, non_blocking=True)), targets.to(device, non_blocking=True))
                confusion = counts if len(confusion) == 0 else confusion + counts
    return score(confusion.cpu())


def _confusion(logits: Tensor, targets: Tensor) -> Tensor:
    classes = logits.shape[1]
    asked = targets >= 0
    pairs = targets[asked] * classes + logits.argmax(1)[asked]
    counts = torch.bincount(pairs, minlength=classes**2)
    if len(counts) > classes**2:
        raise LrsearchError(
            f"the data has class {int(targets.max())}, but the network tells {classes} classes apart: "
            f"expected model.num_classes to be the data's"
        )
    return counts.view(classes, classes)
