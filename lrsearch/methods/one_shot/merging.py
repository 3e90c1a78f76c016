"""Bottlenecks with the outer factors of a Tucker decomposition merged into their neighbours: narrower, no layer more.

Source: merging of Hajimolahoseini et al., "Accelerating the Low-Rank Decomposed Models" (2024). Exact for a kernel of
low rank where no ReLU stands between; with ReLUs it is where retraining starts. The subspaces are chosen by activations
behind the ReLUs, and the core and the last convolution are fitted to what the dense ones put out (ours).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lrsearch.errors import LrsearchError
from lrsearch.factorize import copy_with
from lrsearch.factorize.bottlenecks import find_bottlenecks
from lrsearch.measure.modes import evaluation_mode
from lrsearch.methods.base import Compressed, Progress, Task
from lrsearch.methods.one_shot.apply import finite_weight
from lrsearch.methods.one_shot.merged_bottleneck import MergedBottleneck, Seen
from lrsearch.recipe import Factorization, Recipe

IMAGES = 512
"""How many calibration inputs are looked at."""
_CHUNK = 16
OUTSIDE = "merging leaves what is not in a bottleneck as it is"


def merge(
    model: nn.Module, task: Task, method: str, ranks: Callable[[int], int]
) -> Generator[Progress, None, Compressed]:
    """Make every bottleneck of a network narrower.

    Args:
        model: the dense network; left as it is.
        task: its calibration inputs, if any, decide which subspaces are kept.
        method: the method's name, for the recipe.
        ranks: width of a bottleneck -> channels to keep, at least 1.

    Raises:
        LrsearchError: the network has no bottleneck, or a weight is not finite.
    """
    merged = []
    for bottleneck in find_bottlenecks(model):
        for name in bottleneck.convs:
            finite_weight(model, name)
        width = min(len(model.get_submodule(name).get_parameter("weight")) for name in bottleneck.norms)
        if ranks(width) < width:
            merged.append(MergedBottleneck(model, bottleneck, ranks(width)))
    if not merged:
        raise LrsearchError(
            "merge is true, which needs bottlenecks (1x1, k x k and 1x1 convolutions with batch norms) wide enough to "
            "become narrower; the network has none"
        )
    passes: list[tuple[Callable[[MergedBottleneck, Seen], None], Callable[[MergedBottleneck], None]]] = [
        (MergedBottleneck.observe, MergedBottleneck.choose_subspaces),
        (MergedBottleneck.compare_core, MergedBottleneck.fit_core),
        (MergedBottleneck.compare_last, MergedBottleneck.fit_last),
    ]
    total = 1 + (len(passes) if task.calibration is not None else 0)
    for done, (look, conclude) in enumerate(passes[: total - 1], start=1):
        _watch(model, task, merged, look)
        for each in merged:
            conclude(each)
        yield Progress(done, total)
    compressed = copy_with(model, {name: layer for each in merged for name, layer in each.layers.items()})
    for each in merged:
        each.shift_output(compressed)
    yield Progress(total, total)
    chosen = {name: form for each in merged for name, form in each.forms.items()}
    outside = Factorization(kind="dense", reason=OUTSIDE)
    ordered = {
        name: chosen.get(name, outside)
        for name, module in model.named_modules()
        if name in chosen or isinstance(module, (nn.Conv2d, nn.Linear))
    }
    return Compressed(compressed, Recipe(architecture=task.architecture, method=method, layers=ordered))


def _watch(
    model: nn.Module,
    task: Task,
    merged: Sequence[MergedBottleneck],
    look: Callable[[MergedBottleneck, Seen], None],
) -> None:
    """Show every bottleneck what goes through its dense original, a few images at a time."""
    handles = [handle for each in merged for handle in _hooks(model, each, look)]
    images = 0
    try:
        with evaluation_mode(model), torch.no_grad():
            for batch, _ in task.calibration or ():
                for part in torch.split(batch[: IMAGES - images].to(task.device), _CHUNK):
                    model(part)
                images += len(batch)
                if images >= IMAGES:
                    break
    finally:
        for handle in handles:
            handle.remove()
    if not images:
        raise LrsearchError("the calibration data holds no batch, expected at least one batch of (inputs, targets)")


def _hooks(
    model: nn.Module, merged: MergedBottleneck, look: Callable[[MergedBottleneck, Seen], None]
) -> list[RemovableHandle]:
    first, middle, last = (model.get_submodule(name) for name in merged.bottleneck.convs)
    passed: list[Tensor] = []

    def begun(_: nn.Module, given: tuple[Tensor, ...], __: Tensor) -> None:
        passed[:] = [given[0]]

    def halfway(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        passed.extend([given[0], output])

    def ended(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        look(merged, Seen(passed[0], passed[1], passed[2], given[0], output))
        passed.clear()

    return [
        first.register_forward_hook(begun),
        middle.register_forward_hook(halfway),
        last.register_forward_hook(ended),
    ]
