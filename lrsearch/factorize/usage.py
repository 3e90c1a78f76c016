"""How a network uses its layers: a forward pass, watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lrsearch.errors import LrsearchError


class Call(NamedTuple):
    """One call of a layer in a forward pass, with the heights and widths of what goes in and comes out.

    For a Linear layer the sizes are (1, 1) and ``images`` is the number of rows it multiplies.
    """

    images: int
    input_size: tuple[int, int]
    output_size: tuple[int, int]


@dataclass
class Usage:
    """What a forward pass did with the layers.

    Attributes:
        calls: name -> the calls of that layer, for every layer that was called.
        elsewhere: layers whose weight or bias was also touched by something other than a call of the layer.
    """

    calls: dict[str, tuple[Call, ...]] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)


def watch(model: nn.Module, layers: Mapping[str, nn.Module], example_input: Tensor) -> Usage:
    """Run ``model`` once in eval mode and see how ``layers`` are used.

    Modes, batch-norm statistics and random state are left as they were.

    Raises:
        LrsearchError: the network does not take the example input.
    """
    watcher = _Watcher(layers)
    modes = [(module, module.training) for module in model.modules()]
    devices = [example_input.device] if example_input.is_cuda else []
    try:
        model.eval()
        with fitting(example_input), torch.random.fork_rng(devices), torch.no_grad(), watcher.patched(), watcher:
            model(example_input)
    finally:
        for module, training in modes:
            module.training = training
    return watcher.usage


@contextmanager
def fitting(example_input: Tensor) -> Iterator[None]:
    """Run a network on an example input.

    Raises:
        LrsearchError: the network does not take it.
    """
    try:
        yield
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        shape = tuple(example_input.shape)
        raise LrsearchError(f"the network does not take an example input of shape {shape}: {reason}") from error


class _Watcher(TorchFunctionMode):
    """Sees every torch function that is given a layer's weight or bias.

    Layers are watched by wrapping ``forward`` of the instance rather than by hooks, since torch's own
    transformer layers take another path through their weights when there are hooks.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.usage = Usage()
        self._layers = layers
        self._owners = {
            id(parameter): name for name, layer in layers.items() for parameter in layer.parameters(recurse=False)
        }
        self._running: list[str] = []

    @contextmanager
    def patched(self) -> Iterator[None]:
        for name, layer in self._layers.items():
            vars(layer)["forward"] = self._recording(name, layer)
        try:
            yield
        finally:
            for layer in self._layers.values():
                del vars(layer)["forward"]

    def _recording(self, name: str, layer: nn.Module) -> Callable[[Tensor], Tensor]:
        forward = layer.forward

        def recording(input: Tensor) -> Tensor:
            self._running.append(name)
            try:
                output: Tensor = forward(input)
            finally:
                self._running.pop()
            call = _linear_call(input) if isinstance(layer, nn.Linear) else _conv_call(input, output)
            self.usage.calls[name] = (*self.usage.calls.get(name, ()), call)
            return output

        return recording

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for leaf in tree_leaves((args, kwargs)):
            owner = self._owners.get(id(leaf))
            if owner is not None and self._running[-1:] != [owner]:
                self.usage.elsewhere.add(owner)
        return func(*args, **kwargs)


def _linear_call(given: Tensor) -> Call:
    return Call(given.numel() // max(1, given.shape[-1]), (1, 1), (1, 1))


def _conv_call(given: Tensor, output: Tensor) -> Call:
    images = given.shape[0] if given.dim() == 4 else 1
    return Call(images, (given.shape[-2], given.shape[-1]), (output.shape[-2], output.shape[-1]))
