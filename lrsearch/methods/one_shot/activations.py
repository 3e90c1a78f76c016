"""What a dense network does on calibration inputs, layer by layer, as small matrices.

Source: the second moments of a layer's inputs and of the gradients at its outputs are the factors of K-FAC
(Martens & Grosse 2015; for convolutions Grosse & Martens 2016): together they predict how a change of the layer's
weight changes the network's predictions. Labels are drawn from these predictions, none are read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lrsearch.errors import LrsearchError
from lrsearch.factorize import LayerShape
from lrsearch.measure.modes import evaluation_mode
from lrsearch.methods.base import Loader

POSITIONS = 64
"""Of each image's output positions this many are drawn, for neighbours say much the same."""
_CHUNK = 2**25


def observe(
    model: nn.Module, layers: Mapping[str, LayerShape], inputs: Loader, device: torch.device, images: int
) -> dict[str, Tensor]:
    """Watch the layers at work.

    Args:
        model: the dense network, giving logits (N, classes, ...); left as it is.
        layers: those to watch.
        inputs: batches of (inputs, targets); targets are ignored.
        device: of the model.
        images: at most so many are looked at.

    Returns:
        For each layer that was called, on the CPU, in the precision of its weight but at least single:
        ``<layer>/inputs`` (groups, D, D), the covariance of the input patches where a bias or batch norm behind the
        layer can make up for a change of their mean, else their second moment; ``<layer>/mean`` (groups, D);
        ``<layer>/outputs`` (groups, S, S), the second moment of the gradient at the outputs, summed over positions
        and averaged over images.

    Raises:
        LrsearchError: there is no input.
    """
    watched = {name: _Layer(model.get_submodule(name), shape) for name, shape in layers.items()}
    generator = torch.Generator().manual_seed(0)
    devices = [device] if device.type == "cuda" else []
    seen = 0
    with evaluation_mode(model), torch.random.fork_rng(devices), _hooks(model, watched, generator):
        for batch, _ in inputs:
            part = batch[: images - seen].to(device).requires_grad_()
            with torch.enable_grad():
                torch.autograd.grad(_surprise(model(part), generator), part)
            seen += len(part)
            if seen >= images:
                break
    if not seen:
        raise LrsearchError("the calibration data holds no batch, expected at least one batch of (inputs, targets)")
    found: dict[str, Tensor] = {}
    for name, layer in watched.items():
        if layer.rows:
            found |= {f"{name}/{key}": value for key, value in layer.result(seen).items()}
    return found


def _surprise(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Minus the log-likelihood of labels drawn from the predictions; its gradients have the Fisher information."""
    rows = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    drawn = torch.multinomial(rows.detach().softmax(1).cpu(), 1, generator=generator).squeeze(1)
    return functional.cross_entropy(rows, drawn.to(rows.device), reduction="sum")


class _Layer:
    """Sums over what one layer has been given and what its outputs mattered."""

    def __init__(self, module: nn.Module, shape: LayerShape) -> None:
        self.module, self.shape = module, shape
        self.rows = 0
        self.absorbed = module.bias is not None
        side = shape.in_per_group * shape.kernel[0] * shape.kernel[1]
        self._sum = torch.zeros(shape.groups, side, dtype=torch.float64)
        self._moment = torch.zeros(shape.groups, side, side, dtype=torch.float64)
        self._gradient = torch.zeros(shape.groups, shape.out_per_group, shape.out_per_group, dtype=torch.float64)

    def given(self, inputs: Tensor, generator: torch.Generator) -> None:
        for part in self._parts(inputs):
            patches = patches_of(self.module, part)
            if isinstance(self.module, nn.Conv2d) and patches.shape[1] > POSITIONS:
                drawn = torch.randperm(patches.shape[1], generator=generator)[:POSITIONS]
                patches = patches[:, drawn.to(patches.device)]
            rows = patches.reshape(-1, self.shape.groups, patches.shape[-1] // self.shape.groups).transpose(0, 1)
            self._moment += (rows.mT @ rows).cpu()
            self._sum += rows.sum(1).cpu()
            self.rows += rows.shape[1]

    def mattered(self, gradient: Tensor) -> None:
        channels = 1 if isinstance(self.module, nn.Conv2d) else -1
        rows = gradient.movedim(channels, -1).reshape(-1, self.shape.groups, self.shape.out_per_group).transpose(0, 1)
        self._gradient += (rows.mT @ rows).cpu()

    def result(self, images: int) -> dict[str, Tensor]:
        mean, moment = self._sum / self.rows, self._moment / self.rows
        if self.absorbed:
            moment = moment - mean[:, :, None] * mean[:, None, :]
        found = {"inputs": moment, "mean": mean, "outputs": self._gradient / images}
        dtype = torch.promote_types(self.module.get_parameter("weight").dtype, torch.float32)
        return {key: value.to(dtype) for key, value in found.items()}

    def _parts(self, inputs: Tensor) -> Iterator[Tensor]:
        if isinstance(self.module, nn.Linear):
            yield inputs
            return
        area = self.shape.kernel[0] * self.shape.kernel[1]
        yield from torch.split(inputs, max(1, _CHUNK // max(1, inputs[0].numel() * area)))


def patches_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """What each position of the output sees: (N, positions, D), D in the order of the weight."""
    if not isinstance(module, nn.Conv2d):
        return inputs.reshape(1, -1, inputs.shape[-1])
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    return functional.unfold(padded, module.kernel_size, module.dilation, 0, module.stride).mT


@contextmanager
def _hooks(model: nn.Module, watched: Mapping[str, _Layer], generator: torch.Generator) -> Iterator[None]:
    put_out: dict[int, tuple[weakref.ref[Tensor], _Layer]] = {}

    def watching(layer: _Layer) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            layer.given(inputs[0].detach(), generator)
            put_out[id(output)] = weakref.ref(output), layer
            output.register_hook(layer.mattered)  # type: ignore[no-untyped-call]

        return hook

    def normalised(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        output, layer = put_out.get(id(inputs[0]), (None, None))
        if layer is not None and output is not None and output() is inputs[0]:
            layer.absorbed = True

    handles = [layer.module.register_forward_hook(watching(layer)) for layer in watched.values()]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    handles += [norm.register_forward_pre_hook(normalised) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
