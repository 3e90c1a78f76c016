"""Which layers of a network can be factorized, and what must be known of each to reckon with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lrsearch.factorize.usage import Call, Usage, watch

Layer = nn.Conv2d | nn.Linear

# They hand their layers' weights to fused kernels of torch instead of calling the layers.
_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


@dataclass(frozen=True)
class LayerShape:
    """The shape of a Conv2d, or of a Linear layer as a 1x1 convolution on single positions.

    Attributes:
        out_channels: S.
        in_channels: C, of all groups together.
        kernel: height and width.
        groups: of the dense convolution; each maps C / groups channels to S / groups.
        calls: what one forward pass asks of the layer; None where no example input was given.
    """

    out_channels: int
    in_channels: int
    kernel: tuple[int, int] = (1, 1)
    groups: int = 1
    calls: tuple[Call, ...] | None = None

    @property
    def in_per_group(self) -> int:
        """Input channels of one group."""
        return self.in_channels // self.groups

    @property
    def out_per_group(self) -> int:
        """Output channels of one group."""
        return self.out_channels // self.groups


def find_layers(model: nn.Module, example_input: Tensor | None = None) -> tuple[dict[str, LayerShape], dict[str, str]]:
    """Sort the Conv2d and Linear layers of a network into those that can be replaced and those that cannot.

    The network is left as it is, its mode, batch-norm statistics and the random state included.

    Args:
        model: any network.
        example_input: a batch of one input; with it the shapes know their calls, and layers that the forward
            pass does not simply call are told apart.

    Returns:
        (layers, dense): name in ``named_modules()`` -> shape, and name -> the reason why it stays dense.
        Every Conv2d and Linear is in exactly one of them.

    Raises:
        LrsearchError: the network does not take the example input.
    """
    modules = {name: module for name, module in model.named_modules() if isinstance(module, Layer)}
    dense = _reasons_in_structure(model, modules)
    usage = None
    if example_input is not None:
        candidates = {name: module for name, module in modules.items() if name not in dense}
        usage = watch(model, candidates, example_input)
        dense |= _reasons_in_usage(candidates, usage)
    layers = {
        name: _shape(module, usage.calls[name] if usage else None)
        for name, module in modules.items()
        if name not in dense
    }
    return layers, {name: dense[name] for name in modules if name in dense}


def _shape(module: Layer, calls: tuple[Call, ...] | None) -> LayerShape:
    if isinstance(module, nn.Linear):
        return LayerShape(module.out_features, module.in_features, calls=calls)
    height, width = module.kernel_size
    return LayerShape(module.out_channels, module.in_channels, (height, width), module.groups, calls)


def _reasons_in_structure(model: nn.Module, modules: dict[str, Layer]) -> dict[str, str]:
    places = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    users = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    fused = {
        id(inner): type(outer).__name__
        for outer in model.modules()
        if isinstance(outer, _FUSED)
        for inner in outer.modules()
    }
    reasons = {}
    for name, module in modules.items():
        weight = module._parameters.get("weight")
        if weight is None:
            reason = "its weight is computed from other tensors"
        elif isinstance(weight, UninitializedParameter):
            reason = "its weight has no shape yet"
        elif name == "":
            reason = "it is the whole network, with no place to put a replacement"
        elif places[id(module)] > 1:
            reason = "the layer stands in several places of the network"
        elif any(users[id(parameter)] > 1 for parameter in module.parameters(recurse=False)):
            reason = "it shares a parameter with another module"
        elif id(module) in fused:
            reason = f"{fused[id(module)]} reads its weight directly"
        elif _overrides_forward(module):
            reason = f"its class {type(module).__name__} has a forward pass of its own"
        elif module._forward_hooks or module._forward_pre_hooks:
            reason = "hooks are registered on it"
        else:
            continue
        reasons[name] = reason
    return reasons


def _overrides_forward(module: Layer) -> bool:
    kind = nn.Linear if isinstance(module, nn.Linear) else nn.Conv2d
    changed = any(
        getattr(type(module), method, None) is not getattr(kind, method, None)
        for method in ("forward", "_conv_forward", "__call__")
    )
    return changed or "forward" in vars(module)


def _reasons_in_usage(modules: dict[str, Layer], usage: Usage) -> dict[str, str]:
    reasons = {}
    for name in modules:
        if name in usage.elsewhere:
            reasons[name] = "its weight is used otherwise than by calling the layer"
        elif name not in usage.calls:
            reasons[name] = "it is not called in the forward pass"
    return reasons
