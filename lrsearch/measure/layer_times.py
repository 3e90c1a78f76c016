"""Where the time of a forward pass goes: the share of each layer, measured inside the network."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lrsearch.measure.allocator import freed_memory_kept
from lrsearch.measure.modes import evaluation_mode

_PASSES = 10


def layer_shares(model: nn.Module, layers: Sequence[str], inputs: Tensor) -> dict[str, float]:
    """The fraction of a forward pass that each layer takes, the median over several passes; 0 if it is not called.

    Args:
        model: on the device of ``inputs``, as deployed; run in eval mode, left in its own.
        layers: names of modules, other than the whole network.
        inputs: one batch.
    """
    watch = _Watch(inputs.device)
    modules = {"": model, **{name: model.get_submodule(name) for name in layers}}
    handles = [module.register_forward_pre_hook(watch.begin) for module in modules.values()]
    handles += [module.register_forward_hook(watch.ender(name)) for name, module in modules.items()]
    try:
        with evaluation_mode(model), torch.inference_mode(), freed_memory_kept():
            passes = [_pass(model, inputs, watch) for _ in range(1 + _PASSES)][1:]
    finally:
        for handle in handles:
            handle.remove()
    shares = np.median([[spent[name] / spent[""] for name in layers] for spent in passes], axis=0)
    return dict(zip(layers, shares.tolist(), strict=True))


def _pass(model: nn.Module, inputs: Tensor, watch: _Watch) -> Counter[str]:
    watch.spans.clear()
    model(inputs)
    return watch.seconds()


class _Watch:
    """Notes when modules begin and end; on a GPU by events, so that its kernels are timed, not their launch."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._begun: list[Any] = []
        self.spans: list[tuple[str, Any, Any]] = []

    def begin(self, *_: object) -> None:
        self._begun.append(self._now())

    def ender(self, name: str) -> Any:
        return lambda *_: self.spans.append((name, self._begun.pop(), self._now()))

    def seconds(self) -> Counter[str]:
        """What the noted calls took, by name."""
        if self._cuda:
            torch.cuda.synchronize()
        spent: Counter[str] = Counter()
        for name, begin, end in self.spans:
            spent[name] += begin.elapsed_time(end) / 1000 if self._cuda else end - begin
        return spent

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
