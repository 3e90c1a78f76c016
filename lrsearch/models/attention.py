"""Self-attention whose four projections are Linear layers, so that they can be compressed like any other.

``nn.MultiheadAttention`` keeps the projections of queries, keys and values in one packed parameter that no layer owns,
and hands its weights to a fused kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lrsearch.factorize import replace_layers

_PROJECTIONS = ("query", "key", "value")


class SelfAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, 3.2.2) with the weights and the outputs of another module.

    Args:
        packed: batch first, queries, keys and values of one width, without biases or zeros that are added to keys
            and values.
    """

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, self.dropout = packed.num_heads, packed.dropout
        place = {"device": packed.out_proj.weight.device, "dtype": packed.out_proj.weight.dtype}
        width, biased = packed.embed_dim, packed.in_proj_bias is not None
        self.query, self.key, self.value = (nn.Linear(width, width, biased, **place) for _ in _PROJECTIONS)
        self.out_proj = nn.Linear(width, width, biased, **place)
        self.load_state_dict(_unpacked(packed.state_dict(), ""))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> tuple[Tensor, None]:
        """Map (N, L, E) queries, (N, K, E) keys and values to ((N, L, E) outputs, None).

        ``need_weights`` is there for callers of ``nn.MultiheadAttention``; the weights are never handed out.
        """
        queries, keys, values = (
            projection(given).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection, given in ((self.query, query), (self.key, key), (self.value, value))
        )
        dropout = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


def separate_projections(model: nn.Module) -> nn.Module:
    """Put a ``SelfAttention`` in the place of every packed attention that it can stand for, in place.

    For networks that call ``module(x, x, x, need_weights=False)`` and use nothing else of the module, as
    torchvision's vision transformers do; ``nn.TransformerEncoderLayer`` reads the packed weights itself.
    """
    replace_layers(
        model,
        {
            name: SelfAttention(module)
            for name, module in model.named_modules()
            if type(module) is nn.MultiheadAttention and _replaceable(module)
        },
    )
    return model


def unpack_projections(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state dict with packed projections split up where ``model`` has them separate."""
    unpacked = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, SelfAttention) and f"{name}.in_proj_weight" in unpacked:
            prefix = f"{name}."
            packed = {key: unpacked.pop(key) for key in state if key.startswith(prefix)}
            unpacked |= _unpacked(packed, prefix)
    return unpacked


def _replaceable(module: nn.MultiheadAttention) -> bool:
    plain = module.bias_k is None and module.bias_v is None and not module.add_zero_attn
    return module.batch_first and module.in_proj_weight is not None and plain


def _unpacked(packed: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    state = dict(packed)
    for kind in ("weight", "bias"):
        if (joined := state.pop(f"{prefix}in_proj_{kind}", None)) is not None:
            parts = zip(_PROJECTIONS, torch.chunk(joined, len(_PROJECTIONS)), strict=True)
            state |= {f"{prefix}{projection}.{kind}": part for projection, part in parts}
    return state
