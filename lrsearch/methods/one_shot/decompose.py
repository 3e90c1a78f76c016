"""One layer's decomposition, with the singular vectors that another trial has found."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn

from lrsearch.factorize import factorize_layer
from lrsearch.factorize.svd import stage_weights, svd_factors
from lrsearch.recipe import Factorization
from lrsearch.shared_tensors import SharedTensors


def decompose(name: str, layer: nn.Module, factorization: Factorization, shared: SharedTensors) -> nn.Module:
    """``factorize_layer``, bit for bit; the singular vectors of a weight's slices are found once.

    They are kept up to the rank from which on a layer is no smaller than the dense one, and so take no more room
    than its weight.
    """
    if factorization.kind != "svd":
        return factorize_layer(layer, factorization)
    weight, groups = layer.get_parameter("weight"), getattr(layer, "groups", 1)
    scheme, subspaces, rank = factorization.scheme, factorization.groups, factorization.ranks[0]

    def compute() -> dict[str, Tensor]:
        left, right = svd_factors(weight, groups, scheme, subspaces)
        most = weight.numel() // (left[..., 0, :].numel() + right[..., 0, :].numel())
        return {"left": left[..., :most, :], "right": right[..., :most, :]}

    factors = shared.get(f"svd-{name}-{scheme}-{subspaces}-{_checksum(weight):08x}", compute)
    if rank > factors["left"].shape[-2]:
        return factorize_layer(layer, factorization)
    left, right = (factors[side][..., :rank, :].to(weight.device) for side in ("left", "right"))
    return factorize_layer(layer, factorization, weights=stage_weights(weight, left, right, scheme))


def _checksum(weight: Tensor) -> int:
    """Tells a layer's weight from what a method made of it before it decomposes it."""
    return zlib.crc32(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
