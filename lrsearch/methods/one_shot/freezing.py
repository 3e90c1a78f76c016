"""Which factors of a decomposition stay fixed while the network is retrained.

Source: freezing of Hajimolahoseini et al., "Accelerating the Low-Rank Decomposed Models" (2024): of an SVD pair the
input-side factor is fixed, of a Tucker chain both 1x1; gradients of fixed factors are not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal

from lrsearch.recipe import Recipe

Freeze = Literal["none", "published", "sequential"]

_PUBLISHED = {"svd": ("0",), "tucker2": ("0", "2")}
_OTHERS = {"svd": ("1",), "tucker2": ("1",)}


def frozen_factors(recipe: Recipe, freeze: Freeze) -> Callable[[int], Collection[str]]:
    """Epoch, from 1 -> names of the weights that are fixed in it; biases and batch norms always train.

    ``published`` fixes the same factors in every epoch, ``sequential`` these in odd epochs and the others in even ones.
    """
    odd, even = _weights(recipe, _PUBLISHED), _weights(recipe, _OTHERS)
    if freeze == "none":
        odd = even = []
    elif freeze == "published":
        even = odd
    return lambda epoch: odd if epoch % 2 else even


def _weights(recipe: Recipe, stages: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [f"{name}.{stage}.weight" for name, form in recipe.layers.items() for stage in stages.get(form.kind, ())]
