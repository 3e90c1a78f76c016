"""Layers with fewer channels: the structure that filter pruning leaves, and how a recipe tells it.

A pruned layer's ranks are its channels, (input, output), its groups those of the convolution; batch norm has one
number of channels.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from torch import nn
from torch.nn.utils import skip_init

from lrsearch.recipe import Factorization

BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def pruned(module: nn.Module) -> Factorization | None:
    """The factorization that makes a dense layer as small as ``module``; None for one that cannot be pruned."""
    if isinstance(module, nn.Conv2d):
        return Factorization(kind="pruned", ranks=(module.in_channels, module.out_channels), groups=module.groups)
    if isinstance(module, nn.Linear):
        return Factorization(kind="pruned", ranks=(module.in_features, module.out_features))
    if isinstance(module, BatchNorm):
        return Factorization(kind="pruned", ranks=(module.num_features,))
    return None


def build_pruned(module: nn.Module, factorization: Factorization) -> nn.Module:
    """A layer with the channels that are left, its weights still to be loaded.

    Raises:
        TypeError: the module is no Conv2d, Linear or batch norm.
        ValueError: it has fewer channels than are to be left.
    """
    whole, ranks = pruned(module), factorization.ranks
    if whole is None:
        raise TypeError(f"expected a Conv2d, Linear or batch-norm layer, got {type(module).__name__}")
    fits = len(ranks) == len(whole.ranks) and all(1 <= a <= b for a, b in zip(ranks, whole.ranks, strict=False))
    if not fits or any(left % factorization.groups for left in ranks):
        raise ValueError(f"channels are {ranks} in {factorization.groups} groups, expected at most {whole.ranks}")
    built = _smaller(module, factorization).train(module.training)
    for name, parameter in built.named_parameters():
        parameter.requires_grad_(module.get_parameter(name).requires_grad)
    return built


def _smaller(module: nn.Module, factorization: Factorization) -> nn.Module:
    where: dict[str, Any] = {}
    parameter = next(module.parameters(), None)
    if parameter is not None:
        where = {"device": parameter.device, "dtype": parameter.dtype}
    if isinstance(module, nn.Conv2d):
        options = {
            key: getattr(module, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        }
        groups, bias = factorization.groups, module.bias is not None
        return _uninitialized(nn.Conv2d, *factorization.ranks, groups=groups, bias=bias, **options, **where)
    if isinstance(module, nn.Linear):
        return _uninitialized(nn.Linear, *factorization.ranks, bias=module.bias is not None, **where)
    options = {key: getattr(module, key) for key in ("eps", "momentum", "affine", "track_running_stats")}
    return type(module)(*factorization.ranks, **options, **where)


def _uninitialized(kind: type[nn.Module], *sizes: Any, **options: Any) -> nn.Module:
    module: nn.Module = skip_init(kind, *sizes, **options)  # type: ignore[no-untyped-call]
    return module
