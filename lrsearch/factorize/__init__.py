"""The mathematics of one layer: how it can be factorized, what that costs, and the modules that realise it."""

from lrsearch.factorize.build import build_layer, factorize_layer
from lrsearch.factorize.channel_gather import ChannelGather
from lrsearch.factorize.comparison import compare_layers
from lrsearch.factorize.cost import LayerCost, layer_cost
from lrsearch.factorize.grouped_linear import GroupedLinear
from lrsearch.factorize.layers import LayerShape, find_layers
from lrsearch.factorize.materialize import materialize
from lrsearch.factorize.replace import copy_with, replace_layers, restructure
from lrsearch.factorize.usage import Call, fitting

__all__ = [
    "Call",
    "ChannelGather",
    "GroupedLinear",
    "LayerCost",
    "LayerShape",
    "build_layer",
    "compare_layers",
    "copy_with",
    "factorize_layer",
    "find_layers",
    "fitting",
    "layer_cost",
    "materialize",
    "replace_layers",
    "restructure",
]
