"""What a layer costs, dense or factorized, in closed form."""

from __future__ import annotations

from typing import NamedTuple

from lrsearch.factorize.layers import LayerShape
from lrsearch.factorize.stages import Stage, stages
from lrsearch.factorize.usage import Call
from lrsearch.recipe import Factorization


class LayerCost(NamedTuple):
    """Weights (the bias, which no factorization changes, not counted) and multiply-adds of one forward pass.

    The order of channels that ``messi`` keeps counts like a weight for each channel.

    ``macs`` is None where the shape knows no calls.
    """

    params: int
    macs: int | None


def layer_cost(shape: LayerShape, factorization: Factorization) -> LayerCost:
    """The cost of a layer under a factorization; ``2 * macs`` is what ``FlopCounterMode`` counts for it.

    Raises:
        ValueError: the factorization does not fit the layer.
    """
    chain = stages(shape, factorization)
    params = sum(stage.params for stage in chain)
    if factorization.kind == "messi":
        params += shape.in_channels
    if shape.calls is None:
        return LayerCost(params, None)
    return LayerCost(params, sum(_macs(chain, call) for call in shape.calls))


def _macs(chain: tuple[Stage, ...], call: Call) -> int:
    """Along each axis a stage works at the output's resolution from the one that owns the axis onwards.

    So the first 1x1 of a Tucker chain, say, works at the resolution of the input, whatever the stride.
    """
    height, width = call.input_size
    total = 0
    for stage in chain:
        height = call.output_size[0] if stage.owns[0] else height
        width = call.output_size[1] if stage.owns[1] else width
        total += stage.params * call.images * height * width
    return total
