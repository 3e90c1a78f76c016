"""From a dense network to one with low-rank layers, and on to plain layers and a recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from lrsearch.data.seeds import derived_seed
from lrsearch.factorize import copy_with, factorize_layer, replace_layers
from lrsearch.factorize.layers import Layer
from lrsearch.factorize.svd import singular_values
from lrsearch.methods.one_shot.candidates import svd
from lrsearch.training.dlrt import LowRankLayer, Spectrum, low_rank
from lrsearch.training.random_state import random_state


def initialised_anew(model: nn.Module, seed: int) -> nn.Module:
    """A copy in which every module that knows its usual initialisation has it again."""
    fresh = copy.deepcopy(model)
    with random_state(derived_seed(seed, 0), torch.device("cpu")):
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return fresh


def spectrum_of(model: nn.Module, name: str) -> Spectrum:
    """Singular values of a layer's weight; the roots of the sums of squares over the groups of a convolution."""
    layer = _layer(model, name)
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    values = singular_values(layer.weight, groups, 0, (1,))[1][:, 0]
    spectrum: Spectrum = values.square().sum(0).sqrt().cpu().numpy()
    return spectrum


def spectra(layers: Mapping[str, LowRankLayer]) -> dict[str, Spectrum]:
    """The same of low-rank layers."""
    values = {name: torch.linalg.svdvals(layer.S.detach().double()) for name, layer in layers.items()}
    return {name: each.square().sum(0).sqrt().cpu().numpy() for name, each in values.items()}


def with_low_rank(model: nn.Module, ranks: Mapping[str, int]) -> tuple[nn.Module, dict[str, LowRankLayer]]:
    """A copy of a network with layers truncated to these ranks, and those layers."""
    layers = {name: low_rank(_layer(model, name), rank) for name, rank in ranks.items()}
    return copy_with(model, layers), layers


def make_dense(network: nn.Module, dense: nn.Module, layers: dict[str, LowRankLayer], names: Iterable[str]) -> None:
    """Multiply the factors of some layers out again, in place, and take them from ``layers``.

    Args:
        network: to change.
        dense: the network it was made from, which knows what plain layers look like.
        layers: the low-rank layers of ``network``.
        names: of those to make dense.
    """
    plain = {}
    for name in names:
        layer = layers.pop(name)
        plain[name] = copy.deepcopy(_layer(dense, name))
        with torch.no_grad():
            plain[name].weight.copy_(layer.weight().reshape(plain[name].weight.shape))
            if layer.bias is not None:
                plain[name].get_parameter("bias").copy_(layer.bias)
    replace_layers(network, plain)


def deployed(network: nn.Module, dense: nn.Module, layers: Mapping[str, LowRankLayer]) -> nn.Module:
    """A copy of a trained network in plain layers only: two for each low-rank one."""
    plain = {}
    for name, layer in layers.items():
        bias = None if layer.bias is None else layer.bias.detach()
        plain[name] = factorize_layer(_layer(dense, name), svd(0, 1, layer.rank), weights=layer.stages(), bias=bias)
    return copy_with(network, plain)


def training_params(dense: nn.Module, layers: Mapping[str, LowRankLayer]) -> int:
    """How many numbers a training step holds of a network.

    The augmented factors, 2 r (n + m) + 4 r^2 for each group of a low-rank layer, and everything else.
    """
    total = sum(parameter.numel() for parameter in dense.parameters())
    for name, layer in layers.items():
        groups, (outputs, inputs), rank = len(layer.U), layer.shape, layer.rank
        total += groups * (2 * rank * (outputs + inputs) + 4 * rank**2) - _layer(dense, name).weight.numel()
    return total


def _layer(model: nn.Module, name: str) -> Layer:
    layer = model.get_submodule(name)
    assert isinstance(layer, Layer)  # noqa: S101 - only found layers are asked for
    return layer
