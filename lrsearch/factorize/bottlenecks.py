"""Bottlenecks: a k x k convolution between two 1x1 convolutions, found by what a network computes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional

_RELUS = {torch.relu, torch.relu_, functional.relu, functional.relu_, "relu", "relu_"}


@dataclass(frozen=True)
class Bottleneck:
    """1x1, batch norm, ReLU, k x k, batch norm, ReLU, 1x1, each fed by the one before alone.

    Attributes:
        convs: names of the three convolutions.
        norms: names of the batch norms behind the first and the second.
        rectified: whether there is a ReLU behind the first and the second.
        last_norm: name of the batch norm behind the third; None where something else follows.
    """

    convs: tuple[str, str, str]
    norms: tuple[str, str]
    rectified: tuple[bool, bool]
    last_norm: str | None


def find_bottlenecks(model: nn.Module) -> list[Bottleneck]:
    """The bottlenecks of a network, whatever its classes are called, in the order in which they run.

    Its convolutions have one group, and each of its modules is called once; ReLUs may be missing. None are found in a
    network whose forward pass cannot be traced symbolically.
    """
    graph = traced(model)
    if graph is None:
        return []
    modules = _Modules(model, graph)
    found = (_ending_in(node, modules) for node in graph.nodes)
    return [bottleneck for bottleneck in found if bottleneck is not None]


def traced(model: nn.Module) -> fx.Graph | None:
    """What a network computes; None where its forward pass cannot be traced symbolically."""
    try:
        return fx.symbolic_trace(model).graph
    except Exception:  # it runs any forward pass, with what is no tensor
        return None


class _Modules:
    """The modules behind the nodes of a graph."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self._modules = dict(model.named_modules())
        self._calls = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def called_by(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, if it is called nowhere else."""
        once = node.op == "call_module" and self._calls[node.target] == 1
        return self._modules[str(node.target)] if once else None

    def is_relu(self, node: fx.Node) -> bool:
        """Whether a node is a ReLU, as module, function or method."""
        if node.op == "call_module":
            return isinstance(self._modules[str(node.target)], nn.ReLU)
        return node.op in ("call_function", "call_method") and node.target in _RELUS

    def is_identity(self, node: fx.Node) -> bool:
        """Whether a node passes its input on."""
        return node.op == "call_module" and isinstance(self._modules[str(node.target)], nn.Identity)


def _ending_in(node: fx.Node, modules: _Modules) -> Bottleneck | None:
    """The bottleneck whose last convolution a node is."""
    chain, rectified = [node], []
    for _ in range(4):
        before, relu = _before(chain[-1], modules)
        if before is None:
            return None
        chain.append(before)
        rectified.append(relu)
    last, norm_2, middle, norm_1, first = (modules.called_by(each) for each in chain)
    convs = ((first, True), (middle, False), (last, True))
    if not all(_is_plain(conv, pointwise=pointwise) for conv, pointwise in convs):
        return None
    if not all(_has_statistics(norm) for norm in (norm_1, norm_2)) or rectified[1] or rectified[3]:
        return None
    names = [str(each.target) for each in chain]
    norms = names[3], names[1]
    return Bottleneck((names[4], names[2], names[0]), norms, (rectified[2], rectified[0]), _norm_behind(node, modules))


def _before(node: fx.Node, modules: _Modules) -> tuple[fx.Node | None, bool]:
    """The node that feeds a node, None where it feeds others too, and whether there is a ReLU in between."""
    rectified = False
    while len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
        if len(node.users) != 1:
            break
        if modules.is_relu(node):
            rectified = True
        elif not modules.is_identity(node):
            return node, rectified
    return None, rectified


def _is_plain(conv: nn.Module | None, *, pointwise: bool) -> bool:
    if not isinstance(conv, nn.Conv2d) or conv.groups != 1:
        return False
    return (conv.kernel_size == (1, 1) and conv.padding in ((0, 0), "valid", "same")) == pointwise


def _has_statistics(norm: nn.Module | None) -> bool:
    return isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.running_mean is not None


def _norm_behind(node: fx.Node, modules: _Modules) -> str | None:
    users = list(node.users)
    norm = modules.called_by(users[0]) if len(users) == 1 else None
    return str(users[0].target) if _has_statistics(norm) else None
