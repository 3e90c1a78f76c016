"""What trials occupy, by method, and how many fit side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from lrsearch.errors import LrsearchError
from lrsearch.space import Space


def placement(space: Space) -> Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """What Tune reserves for the trial of a config."""
    requests = {method: space.resources.of(method).request for method in space.methods}

    def reserve(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([requests[config["spec"].method]])

    return reserve


def side_by_side(space: Space, available: Mapping[str, float]) -> int:
    """How many trials of the most modest method fit, at most ``max_concurrent``.

    Args:
        space: says what each method's trials occupy.
        available: what the cluster has, in Ray's words.

    Raises:
        LrsearchError: of some method not even one fits.
    """
    fitting = []
    for method in space.methods:
        request = space.resources.of(method).request
        for name, amount in request.items():
            if amount > available.get(name, 0.0):
                raise LrsearchError(
                    f"resources asks for {_amount(name, amount)} per trial of {method}, "
                    f"but Ray has {_amount(name, available.get(name, 0.0))}"
                )
        fitting.append(min(int(available[name] / amount) for name, amount in request.items()))
    return min(max(fitting), space.resources.max_concurrent or max(fitting))


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.3g} GiB of memory" if name == "memory" else f"{amount:g} {name}s"
