"""What trials occupy, by method, and how many fit side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune

from lrsearch.errors import LrsearchError
from lrsearch.search_config import KIND, ResourcesConfig
from lrsearch.space import Space

Machine = Mapping[str, float]
"""What one machine of the cluster has, in Ray's words."""


def placement(space: Space) -> Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """What Tune reserves for the trial of a config."""
    requests = {method: space.resources.of(method).request for method in space.methods}

    def reserve(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([requests[config["spec"].method]])

    return reserve


def reserved(resources: ResourcesConfig) -> dict[str, Any]:
    """What Ray reserves for a task that does the work of a trial."""
    return {
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus,
        "memory": resources.memory * 2**30,
        "resources": resources.kind,
    }


def room(space: Space, machines: Sequence[Machine]) -> int:
    """How many trials may be on their way: as many of the most modest method as fit, or as the space asks for."""
    requests = [space.resources.of(method).request for method in space.methods]
    fitting = max(sum(_fitting(request, machine) for machine in machines) for request in requests)
    return min(space.resources.workers or fitting, space.resources.max_concurrent or 10**9)


def require_room(space: Space, machines: Sequence[Machine]) -> int:
    """``room``, after a check that the cluster can run the sweep.

    Raises:
        LrsearchError: of some method not even one trial fits on any machine, and the cluster is not said to grow; or
            machines are of several kinds, whose speeds do not compare.
    """
    resources = space.resources
    for method in space.methods:
        request = resources.of(method).request
        if resources.workers is None and not any(_fitting(request, machine) for machine in machines):
            raise LrsearchError(_sentence(method, request, machines))
    request = resources.request
    kinds = {name.removeprefix(KIND) for m in machines if _fitting(request, m) for name in m if name.startswith(KIND)}
    if len(kinds) > 1 and space.compares_speed and resources.accelerator is None:
        raise LrsearchError(
            f"Ray has machines with {' and with '.join(sorted(kinds))}, and speeds on the two do not compare; "
            "name those to use as resources.accelerator"
        )
    return room(space, machines)


def _fitting(request: Mapping[str, float], machine: Machine) -> int:
    return min(int(machine.get(name, 0.0) / amount) for name, amount in request.items())


def _sentence(method: str, request: Mapping[str, float], machines: Sequence[Machine]) -> str:
    """Why no trial of a method fits: what is too much for the largest machine, or only together with the rest."""
    largest = {name: max((machine.get(name, 0.0) for machine in machines), default=0.0) for name in request}
    scarce = {name: amount for name, amount in request.items() if amount > largest[name]} or request
    asked, had = (" and ".join(_amount(name, amounts[name]) for name in scarce) for amounts in (request, largest))
    return f"resources asks for {asked} per trial of {method}, but Ray has at most {had} on one machine"


def _amount(name: str, amount: float) -> str:
    if name.startswith(KIND):
        return f"{'a' if amount else 'no'} {name.removeprefix(KIND)}"
    return f"{amount / 2**30:.3g} GiB of memory" if name == "memory" else f"{amount:g} {name}s"
