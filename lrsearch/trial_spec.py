"""What a trial depends on, and what its result needs to be reproduced."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from lrsearch.dense import Workplace
from lrsearch.measure.device import device_kind
from lrsearch.version import __version__


@dataclass(frozen=True)
class TrialSpec:
    """All that a trial depends on, as plain data; paths are of folders that the worker can reach."""

    number: int
    method: str
    hyperparameters: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    retrain: dict[str, Any]
    seed: int
    workplace: Workplace
    dense_folder: str
    cache_folder: str
    constraints: dict[str, float] = field(default_factory=dict)
    """Bounds of the space: a network that breaks one whatever its training is not trained."""
    continues: str | None = None
    """Folder of a finished trial of fewer epochs, whose training this one takes further."""
    threads: int | None = None
    """For all but measuring, where its method needs another number than the workplace's."""


def provenance(spec: TrialSpec) -> dict[str, Any]:
    """What a result needs to be reproduced: spec, versions, device."""
    return {
        "spec": asdict(spec),
        "python": platform.python_version(),
        "lrsearch": __version__,
        "torch": torch.__version__,
        "device": device_kind(spec.workplace.device),
        "host": platform.node(),
    }
