"""The modules that take a layer's place: plain torch layers in an ``nn.Sequential``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from lrsearch.factorize.branches import branched_weights
from lrsearch.factorize.channel_gather import ChannelGather
from lrsearch.factorize.cp import cp_weights
from lrsearch.factorize.grouped_linear import GroupedLinear
from lrsearch.factorize.layers import Layer, LayerShape
from lrsearch.factorize.projective import cluster_channels
from lrsearch.factorize.pruned import build_pruned
from lrsearch.factorize.stages import Stage, check_fits, stages
from lrsearch.factorize.svd import svd_weights
from lrsearch.factorize.tensor_train import tt_weights
from lrsearch.factorize.tucker import tucker2_weights
from lrsearch.recipe import Factorization


def build_layer(module: nn.Module, factorization: Factorization) -> nn.Module:
    """The structure of a factorized layer, its weights still to be loaded; ``module`` itself where it stays dense.

    A pruned layer is one smaller layer, batch norm too. Otherwise the stages are ``"0"``, ``"1"``, ... of an
    ``nn.Sequential``. Both are on the layer's device, in its dtype and mode, and train if its weight does. No random
    number is drawn.

    Raises:
        TypeError: the module is no Conv2d or Linear, nor a batch norm to be pruned.
        ValueError: the factorization does not fit the layer.
    """
    if factorization.kind == "pruned":
        return build_pruned(module, factorization)
    layer, shape = _layer(module)
    if factorization.kind == "dense":
        return module
    if isinstance(layer, nn.Linear) and factorization.kind not in ("svd", "messi"):
        raise ValueError(f"{factorization.kind} factorizes convolutions, a Linear layer has no kernel")
    chain = stages(shape, factorization)
    built = [_stage(layer, stage, bias=layer.bias is not None and stage is chain[-1]) for stage in chain]
    if factorization.kind == "messi":
        built = [
            ChannelGather(shape.in_channels, -1 if isinstance(layer, nn.Linear) else -3, device=layer.weight.device),
            *built,
        ]
    sequence = nn.Sequential(*built).train(layer.training)
    for parameter in sequence.parameters():
        parameter.requires_grad_(layer.weight.requires_grad)
    if layer.bias is not None:
        _last_bias(sequence).requires_grad_(layer.bias.requires_grad)
    return sequence


def factorize_layer(
    module: nn.Module,
    factorization: Factorization,
    *,
    refine: bool = False,
    weights: Sequence[Tensor] | None = None,
    bias: Tensor | None = None,
) -> nn.Module:
    """The factorized layer with the weights that approximate ``module`` best; ``module`` itself if it stays dense.

    ``svd`` is optimal slice by slice; ``messi`` too, for the slices that projective clustering finds; ``tucker2`` is
    the truncated higher-order SVD, which ``refine`` improves by alternating least squares, as several
    branches always are; ``tt`` is the TT-SVD;
    ``cp`` comes from alternating least squares too. Where ``weights`` of the stages are given they are taken instead,
    and ``bias`` in place of the layer's if it has one.

    Raises:
        TypeError: the module is no Conv2d or Linear.
        ValueError: the factorization does not fit the layer.
        torch.linalg.LinAlgError, ArithmeticError: the weight holds numbers that are not finite, or CP diverges.
    """
    layer, shape = _layer(module)
    check_fits(shape, factorization)
    built = build_layer(layer, factorization)
    if not isinstance(built, nn.Sequential):
        return built
    dense = layer.weight
    gather, *_ = built
    if isinstance(gather, ChannelGather):
        gather.index = cluster_channels(dense, shape.groups, factorization.groups, factorization.ranks[0]).to(
            dense.device
        )
        dense = _reordered(dense, shape.groups, gather.index)
    if weights is None:
        weights = _weights(dense, shape, factorization, refine)
    for stage, weight in zip(built[-len(weights) :], weights, strict=True):
        target = stage.get_parameter("weight")
        with torch.no_grad():
            target.copy_(weight.reshape(target.shape))
    if layer.bias is not None:
        with torch.no_grad():
            _last_bias(built).copy_(layer.bias if bias is None else bias)
    return built


def _reordered(weight: Tensor, groups: int, index: Tensor) -> Tensor:
    """The weight for channels in another order, each group's among themselves."""
    local = index.reshape(groups, -1) % weight.shape[1]
    return torch.cat([part[:, order] for part, order in zip(weight.chunk(groups), local, strict=True)])


def _weights(weight: Tensor, shape: LayerShape, factorization: Factorization, refine: bool) -> tuple[Tensor, ...]:
    if factorization.kind == "tucker2":
        r1, r2 = factorization.ranks
        if factorization.groups > 1:
            return branched_weights(weight, shape.groups, r1, r2, factorization.groups)
        return tucker2_weights(weight, shape.groups, r1, r2, refine=refine)
    if factorization.kind == "tt":
        r1, r2 = factorization.ranks
        return tt_weights(weight, shape.groups, r1, r2)
    if factorization.kind == "cp":
        return cp_weights(weight, shape.groups, factorization.ranks[0], factorization.scheme)
    rank = factorization.ranks[0]
    return svd_weights(weight, shape.groups, factorization.scheme, factorization.groups, rank)


def _layer(module: nn.Module) -> tuple[Layer, LayerShape]:
    if isinstance(module, nn.Linear):
        return module, LayerShape(module.out_features, module.in_features)
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        return module, LayerShape(module.out_channels, module.in_channels, (height, width), module.groups)
    raise TypeError(f"expected a Conv2d or Linear layer, got {type(module).__name__}")


def _last_bias(sequence: nn.Sequential) -> nn.Parameter:
    return sequence[len(sequence) - 1].get_parameter("bias")


def _stage(layer: Layer, stage: Stage, *, bias: bool) -> nn.Module:
    return _linear(layer, stage, bias=bias) if isinstance(layer, nn.Linear) else _conv(layer, stage, bias=bias)


def _linear(layer: nn.Linear, stage: Stage, *, bias: bool) -> nn.Module:
    options: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    if stage.groups > 1:
        return _uninitialized(GroupedLinear, stage.in_channels, stage.out_channels, stage.groups, **options)
    return _uninitialized(nn.Linear, stage.in_channels, stage.out_channels, bias=bias, **options)


def _conv(layer: nn.Conv2d, stage: Stage, *, bias: bool) -> nn.Module:
    """A stage carries stride, padding and dilation along the axes it owns.

    Padding with zeros, reflections, copies or periods all commute with the other stages, which act on each
    position alone along this axis and have no bias before the last.
    """
    return _uninitialized(
        nn.Conv2d,
        stage.in_channels,
        stage.out_channels,
        stage.kernel,
        stride=_owned(layer.stride, stage, 1),
        padding=layer.padding if isinstance(layer.padding, str) else _owned(layer.padding, stage, 0),
        dilation=_owned(layer.dilation, stage, 1),
        groups=stage.groups,
        bias=bias,
        padding_mode=layer.padding_mode if any(stage.owns) else "zeros",
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )


def _uninitialized(kind: type[nn.Module], *sizes: Any, **options: Any) -> nn.Module:
    module: nn.Module = skip_init(kind, *sizes, **options)  # type: ignore[no-untyped-call]
    return module


def _owned(values: tuple[int, ...], stage: Stage, otherwise: int) -> tuple[int, int]:
    height, width = (value if owned else otherwise for value, owned in zip(values, stage.owns, strict=True))
    return height, width
