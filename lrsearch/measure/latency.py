"""How long layers take on this device, dense and factorized, measured once and then looked up.

Source: rank optimisation of "Accelerating the Low-Rank Decomposed Models" (2024), Algorithm 1, which asks for such
times; how they are taken is ours: in rounds of random order, medians, compared with the dense layer beside them.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lrsearch.factorize import Call, build_layer
from lrsearch.files import only_process, read_json, write_json
from lrsearch.measure.deployment import Deployment
from lrsearch.measure.device import device_kind
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.interleave import interleaved
from lrsearch.measure.layer_times import layer_shares
from lrsearch.measure.throughput import measure_throughput
from lrsearch.object_storage import fetch
from lrsearch.recipe import Factorization

_REPEATS = 30
_BLOCK_SECONDS = 0.001
_WARM_UP = 0.005
_DENSE = "dense"
_MEDIAN_ERROR = 1.4826 * (np.pi / 2) ** 0.5
"""Standard error of the median of n values over their median absolute deviation, times the root of n (normal law)."""


class Timing(NamedTuple):
    """Seconds that a layer takes: the median of many passes, and how uncertain that median is.

    ``deviation`` is the passes' median absolute deviation, scaled to the standard error of their median: on a busy
    machine single passes differ by half, medians of many do not.
    """

    median: float
    deviation: float


class LatencyTable:
    """Times of layers under one deployment, kept in memory and, with a ``folder``, in a file that processes share.

    Another device, release of torch or number of threads has a file of its own.

    Args:
        deployment: precision, layout and batch that layers are timed in.
        gate: measurements hold it; None where nobody else works on the device.
        folder: where the file is kept.
    """

    def __init__(
        self, deployment: Deployment | None = None, gate: DeviceGate | None = None, folder: Path | None = None
    ) -> None:
        self.deployment = deployment or Deployment()
        self._gate = gate
        self._folder = folder
        self._known: dict[str, dict[str, Any]] = {}

    def timings(self, layer: nn.Module, calls: Sequence[Call], factorizations: Sequence[Factorization]) -> list[Timing]:
        """What a layer takes for one batch under each factorization.

        What is not known yet is timed in rounds with the dense layer, and brought to the scale of the dense layer's
        first measurement: so that what was measured at different moments compares.

        Args:
            layer: a Conv2d or Linear, on the device; its weights do not matter.
            calls: what a forward pass of one image asks of it.
            factorizations: ``dense`` for the layer itself.
        """
        named = {_name(factorization): factorization for factorization in factorizations}

        def measure(known: Mapping[str, Any]) -> dict[str, Any]:
            missing = {name: each for name, each in named.items() if name not in known and name != _DENSE}
            return self._measure(layer, calls, missing, known.get(_DENSE))

        known = self._known_of(f"{layer!r} on {_sizes(calls)}", layer, {_DENSE, *named}, measure)
        return [Timing(*known[_name(factorization)]) for factorization in factorizations]

    def shares(self, model: nn.Module, layers: Sequence[str], example_input: Tensor) -> dict[str, float]:
        """The fraction of a network's forward pass of one batch that each of its layers takes, measured inside it.

        Args:
            model: on the device of the input.
            layers: names of modules.
            example_input: a batch of one input.
        """
        structure = hashlib.sha256(f"{model!r} {tuple(example_input.shape[1:])}".encode()).hexdigest()[:16]

        def measure(_: Mapping[str, Any]) -> dict[str, Any]:
            deployed = replace(self.deployment, compile=False).network(model)
            return layer_shares(deployed, layers, self.deployment.batch(example_input))

        known = self._known_of(f"network {structure}", model, set(layers), measure)
        return {name: known[name] for name in layers}

    def speedup(self, model: nn.Module, dense: nn.Module, example_input: Tensor) -> float:
        """Time of the dense network over that of another, both measured now as deployed; never looked up."""
        networks = self.deployment.network(model), self.deployment.network(dense)
        with self.alone():
            return measure_throughput(*networks, self.deployment.batch(example_input)).speedup

    def alone(self) -> AbstractContextManager[None]:
        """What to hold while time is taken, so that nobody else works on the device."""
        return self._gate.measurement() if self._gate else nullcontext()

    def _known_of(
        self, what: str, module: nn.Module, needed: set[str], measure: Callable[[Mapping[str, Any]], dict[str, Any]]
    ) -> Mapping[str, Any]:
        """The entries of something to measure; where some are missing they are measured now and kept."""
        key = f"{what} as {self.deployment}"

        def missing() -> bool:
            return not needed <= self._known.get(key, {}).keys()

        path = self._path(next(module.parameters()).device)
        if missing():
            self._read(path)
        if missing():
            with self.alone(), only_process(path.with_suffix(".lock")) if path else nullcontext():
                self._read(path)  # another process may have measured it meanwhile
                if missing():
                    known = self._known.setdefault(key, {})
                    known |= measure(known)
                    if path:
                        write_json(path, self._known)
        return self._known[key]

    def _path(self, device: torch.device) -> Path | None:
        """Where processes share what they know."""
        if self._folder is None:
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"latency-{_environment(device)}.json"

    def _read(self, path: Path | None) -> None:
        if path:
            fetch(path)
            self._known = read_json(path, "delete it to measure again") or {}

    def _measure(
        self,
        layer: nn.Module,
        calls: Sequence[Call],
        factorizations: Mapping[str, Factorization],
        dense: Sequence[float] | None,
    ) -> dict[str, Any]:
        device = next(layer.parameters()).device
        built = [copy.deepcopy(layer), *(build_layer(layer, each) for each in factorizations.values())]
        inputs = [self._random(_input_shape(layer, call, self.deployment.batch_size), device) for call in calls]
        for parameter in (parameter for module in built for parameter in module.parameters()):
            # What memory happens to hold may be slow to multiply.
            parameter.data = self._random(parameter.shape, device)
        with torch.inference_mode():
            times = interleaved(
                [partial(_run, module.eval(), inputs) for module in built],
                device,
                block_seconds=_BLOCK_SECONDS,
                warm_up=_WARM_UP,
                rounds=_REPEATS,
            )
        scale = dense[0] / float(np.median(times[:, 0])) if dense else 1.0
        found = {name: _timing(column * scale) for name, column in zip((_DENSE, *factorizations), times.T, strict=True)}
        return found | ({_DENSE: dense} if dense else {})

    def _random(self, shape: Sequence[int], device: torch.device) -> Tensor:
        values = torch.randn(tuple(shape), generator=torch.Generator(device).manual_seed(0), device=device)
        return self.deployment.laid_out(values)


def _run(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    for each in inputs:
        module(each)


def _input_shape(layer: nn.Module, call: Call, batch: int) -> tuple[int, ...]:
    if isinstance(layer, nn.Conv2d):
        return (call.images * batch, layer.in_channels, *call.input_size)
    return (call.images * batch, layer.get_parameter("weight").shape[1])


def _timing(times: npt.NDArray[np.float64]) -> list[float]:
    middle = float(np.median(times))
    return [middle, float(np.median(abs(times - middle))) * _MEDIAN_ERROR / len(times) ** 0.5]


def _name(factorization: Factorization) -> str:
    return _DENSE if factorization.kind == "dense" else factorization.model_dump_json(exclude_defaults=True)


def _sizes(calls: Sequence[Call]) -> str:
    return ", ".join(f"{call.images} x {call.input_size[0]} x {call.input_size[1]}" for call in calls)


def _environment(device: torch.device) -> str:
    """What times depend on beside the deployment, as part of a file's name."""
    name = device_kind(device) + (f"-{torch.get_num_threads()}" if device.type == "cpu" else "")
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{name}-torch-{torch.__version__}")
