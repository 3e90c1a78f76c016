"""What compressing did to each layer: its ranks, how much of it is left, how far its weight moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lrsearch.factorize.layers import Layer
from lrsearch.factorize.materialize import multiplied_out
from lrsearch.recipe import Factorization


def compare_layers(
    dense: nn.Module, compressed: nn.Module, factorizations: Mapping[str, Factorization]
) -> list[dict[str, Any]]:
    """One entry of plain data for each Conv2d and Linear layer of a recipe, in its order.

    Returns:
        Entries of ``layer`` (its name), ``shape`` of the dense weight, the fields of its factorization,
        ``dense_params``, ``params`` and ``error``: the Frobenius norm of what the weight changed by, relative to the
        dense weight's; None where the new layer has no weight of that shape (pruned, merged with its neighbour).
    """
    entries = []
    for name, factorization in factorizations.items():
        layer, replacement = dense.get_submodule(name), compressed.get_submodule(name)
        if isinstance(layer, Layer):
            entries.append(
                {
                    "layer": name,
                    "shape": list(layer.weight.shape),
                    **factorization.model_dump(mode="json"),
                    "dense_params": _size(layer),
                    "params": _size(replacement),
                    "error": _error(layer, replacement),
                }
            )
    return entries


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _error(layer: Layer, replacement: nn.Module) -> float | None:
    try:
        weight, _ = multiplied_out(replacement, layer)
    except (TypeError, ValueError):
        return None
    dense = layer.weight.detach()
    moved, norm = torch.linalg.vector_norm(weight.detach() - dense), torch.linalg.vector_norm(dense)
    return float(moved / norm.clamp_min(1e-12))
