"""Convolutions of shortcuts, found by what a network computes."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from lrsearch.factorize.bottlenecks import traced

_ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}


def find_shortcuts(model: nn.Module) -> list[str]:
    """Names of the convolutions through which alone a residual block's input is added to its output.

    None are found in a network whose forward pass cannot be traced symbolically.
    """
    graph, modules = traced(model), dict(model.named_modules())
    found = []
    for node in graph.nodes if graph is not None else ():
        if node.target in _ADDITIONS and len(node.all_input_nodes) == 2:
            one, other = (_way_back(each, modules) for each in node.all_input_nodes)
            found += [short[0][0] for short, long in ((one, other), (other, one)) if _passes_by(short, long)]
    return found


def _way_back(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[list[str], fx.Node]:
    """The convolutions between a node and where, further up, paths fork or meet; and the node there."""
    convs = []
    while len(node.users) == 1 and len(node.all_input_nodes) == 1:
        if node.op == "call_module" and isinstance(modules[str(node.target)], nn.Conv2d):
            convs.append(str(node.target))
        node = node.all_input_nodes[0]
    return convs, node


def _passes_by(short: tuple[list[str], fx.Node], long: tuple[list[str], fx.Node]) -> bool:
    """Whether one way is a single convolution beside more that comes from the same node."""
    (convs, fork), (others, start) = short, long
    return len(convs) == 1 and (len(others) > 1 if start is fork else fork in _above(start))


def _above(node: fx.Node) -> set[fx.Node]:
    """All that a node depends on."""
    seen: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        new = [each for each in waiting.pop().all_input_nodes if each not in seen]
        seen.update(new)
        waiting += new
    return seen
