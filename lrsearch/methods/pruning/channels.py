"""Which channels of a network exist, which can only go together, and a network without some of them.

Dependencies (residual sums, concatenations, depthwise convolutions, flattening) are found, and tensors cut, by
torch-pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize.pruned import pruned
from lrsearch.measure.modes import evaluation_mode
from lrsearch.recipe import Factorization


@dataclass(frozen=True)
class Coupled:
    """Channels of one or several layers that are summed, normalised or filtered together and so go together.

    Attributes:
        root: the layer whose output channels number them.
        units: how many can go independently: in a grouped convolution one of every group at once.
        together: channels of a unit.
        producers: layer -> its output channels, and the root's channel that each belongs to.
        consumers: layer -> its input channels, likewise.
    """

    root: str
    units: int
    together: int
    producers: Mapping[str, tuple[list[int], list[int]]]
    consumers: Mapping[str, tuple[list[int], list[int]]]

    def channels(self, units: Sequence[int]) -> list[int]:
        """The root's channels that belong to units."""
        return [unit + self.units * part for part in range(self.together) for unit in units]

    def removable(self, scores: Tensor) -> list[int]:
        """Units by (units,) scores, the smallest first, without those that leave a layer its last channel."""
        best = {
            max((index % self.units for index in root), key=lambda unit: float(scores[unit]))
            for _, root in self.producers.values()
        }
        return [unit for unit in scores.argsort(stable=True).tolist() if unit not in best]

    def per_unit(self, values: Tensor) -> Tensor:
        """Values of the root's channels, (channels,), added up to (units,)."""
        return values.reshape(self.together, self.units).sum(0)


def find_coupled(model: nn.Module, example_input: Tensor) -> list[Coupled]:
    """All channels that some layer reads, so that they are not the network's outputs, and that it works without.

    Raises:
        LrsearchError: torch-pruning cannot trace the network.
    """
    network, graph = _traced(model, example_input)
    names = {module: name for name, module in network.named_modules()}
    found = []
    for group in graph.get_all_groups():
        producers: dict[str, tuple[list[int], list[int]]] = {}
        consumers: dict[str, tuple[list[int], list[int]]] = {}
        together = 1
        for item in group:
            module = item.dep.target.module
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            side = producers if graph.is_out_channel_pruning_fn(item.dep.handler) else consumers
            side[names[module]] = list(item.idxs), list(item.root_idxs)
            if isinstance(module, nn.Conv2d) and not _is_depthwise(module):
                together = math.lcm(together, module.groups)
        channels = len(group[0].idxs)
        if consumers and channels % together == 0 and all(_can_shrink(item.dep.target.module) for item in group):
            root = names[group[0].dep.target.module]
            found.append(Coupled(root, channels // together, together, producers, consumers))
    if _works_without(model, example_input, found):
        return found
    return [each for each in found if _works_without(model, example_input, [each])]


def without(model: nn.Module, example_input: Tensor, removed: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy of a network without channels, each layer's numbered by the dense layer's outputs.

    Args:
        model: the dense network, which stays untouched.
        example_input: what it is traced with.
        removed: root -> channels to remove.

    Raises:
        LrsearchError: the network cannot be traced, or does not work without the channels.
    """
    network, graph = _traced(model, example_input)
    for root, channels in removed.items():
        if channels:
            layer = network.get_submodule(root)
            cut = graph.get_pruner_of_module(layer).prune_out_channels
            graph.get_pruning_group(layer, cut, list(channels)).prune()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(model.get_parameter(name).requires_grad)
        parameter.grad = None
    for name, module in network.named_modules():
        module.training = model.get_submodule(name).training
    _check_runs(network, model, example_input)
    return network


def smaller_layers(model: nn.Module, network: nn.Module) -> dict[str, Factorization]:
    """What tells the pruned network's structure: name -> channels, of every layer that has fewer than the dense one.

    Raises:
        LrsearchError: something else than convolutions, Linear layers and batch norms became smaller.
    """
    found = {}
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        other = network.get_submodule(name)
        left = dict(other.named_parameters(recurse=False)) | dict(other.named_buffers(recurse=False))
        if all(left[key].shape == value.shape for key, value in own.items()):
            continue
        factorization = pruned(other)
        if factorization is None:
            raise LrsearchError(
                f"pruning made {name!r} of type {type(module).__name__} smaller, expected only Conv2d, Linear and "
                "batch-norm layers to change"
            )
        found[name] = factorization
    return found


def _traced(model: nn.Module, example_input: Tensor) -> tuple[nn.Module, Any]:
    from torch_pruning import DependencyGraph

    network = copy.deepcopy(model).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad(), torch.random.fork_rng([example_input.device] if example_input.is_cuda else []):
            graph = DependencyGraph().build_dependency(network, example_input, verbose=False)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise LrsearchError(f"torch-pruning cannot trace this network to prune its filters: {reason}") from error
    return network, graph


def _works_without(model: nn.Module, example_input: Tensor, coupled: Sequence[Coupled]) -> bool:
    """Shortcuts that pad channels with zeros, say, rely on their number."""
    try:
        equal = {each.root: each.removable(torch.zeros(each.units)) for each in coupled}
        without(model, example_input, {each.root: each.channels(equal[each.root]) for each in coupled})
    except LrsearchError:
        return False
    return True


def _check_runs(network: nn.Module, model: nn.Module, example_input: Tensor) -> None:
    try:
        with evaluation_mode(network), evaluation_mode(model), torch.no_grad():
            shapes = [_shapes(each(example_input)) for each in (network, model)]
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise LrsearchError(f"the network does not work with fewer channels: {reason}") from error
    if shapes[0] != shapes[1]:
        raise LrsearchError(f"with fewer channels the network puts out {shapes[0]}, expected {shapes[1]} as before")


def _shapes(output: Any) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _can_shrink(module: Any) -> bool:
    """Whether a recipe can tell that this part of the network lost channels, if it has any to lose."""
    if not isinstance(module, nn.Module):
        return False
    return pruned(module) is not None or not any(True for _ in (*module.parameters(), *module.buffers()))


def _is_depthwise(module: nn.Conv2d) -> bool:
    return module.groups == module.in_channels == module.out_channels
