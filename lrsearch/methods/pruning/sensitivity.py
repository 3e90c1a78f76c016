"""How much of a layer's output a single input channel can make up.

Source: Liebenwein, Baykal, Lang, Feldman, Rus, "Provable Filter Pruning for Efficient Neural Networks", ICLR 2020,
Definition 1, with positive and negative contributions taken apart (section 3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import LayerShape
from lrsearch.measure.modes import evaluation_mode
from lrsearch.methods.base import Loader
from lrsearch.methods.one_shot.activations import patches_of

IMAGES = 128
"""How many calibration inputs are looked at; the paper needs only a few, for sensitivities are maxima."""
_POSITIONS = 8
"""Of each image's output positions this many are drawn."""
_CHUNK = 2**22


def sensitivities(weight: Tensor, groups: int, patches: Tensor) -> Tensor:
    """The largest share that an input channel has in any output.

    Args:
        weight: (S, C / groups, height, width), or (S, C) of a Linear layer.
        groups: of the convolution.
        patches: (rows, C height width), what output positions see, in the order of the weight.

    Returns:
        (C,), from 0 to 1.
    """
    cells = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    found = torch.zeros(groups, weight.shape[1], dtype=weight.dtype, device=weight.device)
    rows = max(1, _CHUNK // weight.numel())
    for start in range(0, len(patches), rows):
        part = patches[start : start + rows]
        seen = part.reshape(len(part), groups, weight.shape[1], -1)
        shares = torch.einsum("pgca,gsca->pgsc", seen, cells)
        for signed in (shares.clamp_min(0), (-shares).clamp_min(0)):
            total = signed.sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
            found = torch.maximum(found, (signed / total).amax((0, 2)))
    return found.flatten()


def observe_sensitivities(
    model: nn.Module, layers: Mapping[str, LayerShape], inputs: Loader, device: torch.device
) -> dict[str, Tensor]:
    """The sensitivity of every layer's input channels on calibration inputs: name -> (C,).

    Raises:
        LrsearchError: there is no input.
    """
    found: dict[str, Tensor] = {}
    seen, generator = 0, torch.Generator().manual_seed(0)
    with evaluation_mode(model), torch.no_grad(), _hooks(model, layers, found, generator):
        for batch, _ in inputs:
            part = batch[: IMAGES - seen].to(device)
            model(part)
            seen += len(part)
            if seen >= IMAGES:
                break
    if not seen:
        raise LrsearchError("the calibration data holds no batch, expected at least one batch of (inputs, targets)")
    return {name: value.cpu() for name, value in found.items()}


def weight_sensitivities(weight: Tensor, groups: int) -> Tensor:
    """Without inputs: the largest share that a channel has in the absolute weights of any output, (C,)."""
    absolute = weight.detach().abs()
    return sensitivities(absolute, groups, absolute.new_ones(1, groups * absolute[0].numel()))


@contextmanager
def _hooks(
    model: nn.Module, layers: Mapping[str, LayerShape], found: dict[str, Tensor], generator: torch.Generator
) -> Iterator[None]:
    def watching(name: str, groups: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            patches = patches_of(module, inputs[0])
            if isinstance(module, nn.Conv2d) and patches.shape[1] > _POSITIONS:
                drawn = torch.randperm(patches.shape[1], generator=generator)[:_POSITIONS]
                patches = patches[:, drawn.to(patches.device)]
            own = sensitivities(module.get_parameter("weight"), groups, patches.flatten(0, 1))
            found[name] = torch.maximum(found[name], own) if name in found else own

        return hook

    handles = [
        model.get_submodule(name).register_forward_pre_hook(watching(name, shape.groups))
        for name, shape in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
