"""What a dense network does on calibration inputs, layer by layer, as small matrices."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lrsearch.errors import LrsearchError
from lrsearch.factorize import LayerShape
from lrsearch.measure.modes import evaluation_mode
from lrsearch.methods.base import Loader
from lrsearch.methods.one_shot.shrinkage import shrunk

POSITIONS = 64
"""Of each image's output positions this many are drawn for a covariance, for neighbours say much the same."""
_BLOCK = 512
"""Columns of a product of which only a triangle is needed are taken so many at once."""


class Observer(ABC):
    """Sums over what one layer is given and what its outputs mean to the predictions.

    Attributes:
        absorbed: whether a bias or batch norm behind the layer can make up for a change of its inputs' mean.
    """

    def __init__(self, module: nn.Module, shape: LayerShape) -> None:
        self.module, self.shape = module, shape
        self.absorbed = module.bias is not None
        self._side = shape.in_per_group * shape.kernel[0] * shape.kernel[1]
        self._sum = torch.zeros(shape.groups, self._side, dtype=torch.float64)
        self._rows = self._samples = 0

    def see(self, inputs: Tensor, gradient: Tensor, images: int) -> None:
        """What the layer was given by a batch of ``images``, and the gradient at its output."""
        gradients = gradient.movedim(1 if isinstance(self.module, nn.Conv2d) else -1, -1)
        positions = max(gradients[..., 0].numel() // images, 1)
        pieces = -(-images // self._together(positions))
        for given, mattered in zip(inputs.chunk(pieces), gradients.chunk(pieces), strict=True):
            rows = self._grouped(self._chosen(patches_of(self.module, given)), self._side)
            self._sum += rows.sum(1).cpu()
            self._rows += rows.shape[1]
            self._add(rows, self._grouped(mattered, self.shape.out_per_group))

    def result(self, images: int) -> dict[str, Tensor]:
        """The layer's part of what ``observe`` returns, from so many images; empty where it was never called.

        ``inputs`` are ``shrunk``.
        """
        if not self._rows:
            return {}
        found = {"mean": self._sum / self._rows, **self._moments(images)}
        found["inputs"] = shrunk(found["inputs"], self._samples)
        dtype = torch.promote_types(self.module.get_parameter("weight").dtype, torch.float32)
        return {key: value.to(dtype) for key, value in found.items()}

    def _grouped(self, rows: Tensor, entries: int) -> Tensor:
        return rows.reshape(-1, self.shape.groups, entries).transpose(0, 1)

    def _chosen(self, patches: Tensor) -> Tensor:
        return patches

    @abstractmethod
    def _together(self, positions: int) -> int:
        """How many images are looked at as one, of so many output positions each."""

    @abstractmethod
    def _add(self, rows: Tensor, gradients: Tensor) -> None:
        """(groups, n, D) patches and (groups, n, S) gradients; counts the samples of ``inputs`` that they make."""

    @abstractmethod
    def _moments(self, images: int) -> dict[str, Tensor]:
        """(groups, D, D) ``inputs``, and others."""


class Covariances(Observer):
    """``inputs``, (groups, D, D): the covariance of the patches; their second moment where it is not ``absorbed``."""

    def __init__(self, module: nn.Module, shape: LayerShape) -> None:
        super().__init__(module, shape)
        self._generator = torch.Generator().manual_seed(0)
        self._moment = torch.zeros(shape.groups, self._side, self._side, dtype=torch.float64)

    def _chosen(self, patches: Tensor) -> Tensor:
        if not isinstance(self.module, nn.Conv2d) or patches.shape[1] <= POSITIONS:
            return patches
        drawn = torch.randperm(patches.shape[1], generator=self._generator)[:POSITIONS]
        return patches[:, drawn.to(patches.device)]

    def _together(self, positions: int) -> int:
        return 16

    def _add(self, rows: Tensor, gradients: Tensor) -> None:
        self._samples += rows.shape[1]
        add_gram(self._moment, rows)

    def _moments(self, images: int) -> dict[str, Tensor]:
        mean, moment = self._sum / self._rows, both_triangles(self._moment) / self._rows
        return {"inputs": moment - mean[:, :, None] * mean[:, None, :] if self.absorbed else moment}


def observe(
    model: nn.Module,
    layers: Mapping[str, LayerShape],
    inputs: Loader,
    device: torch.device,
    images: int,
    observer: Callable[[nn.Module, LayerShape], Observer],
) -> dict[str, Tensor]:
    """Watch the layers at work.

    Args:
        model: the dense network, giving logits (N, classes, ...); left as it is.
        layers: those to watch.
        inputs: batches of (inputs, targets); targets are ignored.
        device: of the model.
        images: at most so many are looked at.
        observer: what to make of it.

    Returns:
        For each layer that the predictions depend on, on the CPU, in the precision of its weight but at least single:
        ``<layer>/mean`` (groups, D) of its input patches, and ``<layer>/...`` as the observer tells.

    Raises:
        LrsearchError: there is no input.
    """
    watched = {name: observer(model.get_submodule(name), shape) for name, shape in layers.items()}
    generator = torch.Generator().manual_seed(0)
    devices = [device] if device.type == "cuda" else []
    seen = 0
    with evaluation_mode(model), torch.random.fork_rng(devices):
        for batch, _ in inputs:
            part = batch[: images - seen].to(device).requires_grad_()
            with torch.enable_grad(), _hooks(model, watched.values(), len(part)):
                torch.autograd.grad(_surprise(model(part), generator), part)
            seen += len(part)
            if seen >= images:
                break
    if not seen:
        raise LrsearchError("the calibration data holds no batch, expected at least one batch of (inputs, targets)")
    results = {name: layer.result(seen) for name, layer in watched.items()}
    return {f"{name}/{key}": value for name, result in results.items() for key, value in result.items()}


def _surprise(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Has gradients of mean 0 whose second moment is the Fisher information of the predictions, for random signs.

    The root of diag(p) - p p^T times the signs: less noisy than drawing labels from p.
    """
    rows = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    p = rows.detach().softmax(1)
    signs = torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1
    scaled = p.sqrt() * signs
    return (rows * (scaled - p * scaled.sum(1, keepdim=True))).sum()


def patches_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """What each position of the output sees: (N, positions, D), D in the order of the weight."""
    if not isinstance(module, nn.Conv2d):
        return inputs.reshape(1, -1, inputs.shape[-1])
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    return functional.unfold(padded, module.kernel_size, module.dilation, 0, module.stride).mT


def add_gram(total: Tensor, rows: Tensor) -> None:
    """Add rows^T rows (groups, D, D) to ``total``, on the CPU, but not all of what is above its diagonal."""
    for start in range(0, total.shape[-1], _BLOCK):
        end = min(start + _BLOCK, total.shape[-1])
        total[..., start:end, :end] += (rows[..., start:end].mT @ rows[..., :end]).cpu()


def both_triangles(lower: Tensor) -> Tensor:
    """The symmetric matrices of which this is the lower triangle."""
    return lower.tril() + lower.tril(-1).mT


@contextmanager
def _hooks(model: nn.Module, watched: Collection[Observer], images: int) -> Iterator[None]:
    put_out: dict[int, tuple[weakref.ref[Tensor], Observer]] = {}

    def watching(layer: Observer) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            given = inputs[0].detach()
            put_out[id(output)] = weakref.ref(output), layer
            output.register_hook(lambda gradient: layer.see(given, gradient, images))  # type: ignore[no-untyped-call]

        return hook

    def normalised(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        output, layer = put_out.get(id(inputs[0]), (None, None))
        if layer is not None and output is not None and output() is inputs[0]:
            layer.absorbed = True

    handles = [layer.module.register_forward_hook(watching(layer)) for layer in watched]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    handles += [norm.register_forward_pre_hook(normalised) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
