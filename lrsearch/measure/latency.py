"""Measured times of single layers, which a budget can be in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lrsearch.recipe import Factorization


@dataclass(frozen=True)
class LatencyTable:
    """How long layers take, each measured alone on the hardware that the network is for.

    Attributes:
        network: seconds that the dense network takes.
        layers: layer -> factorization -> seconds, its dense form ``Factorization(kind="dense")`` always among them.
            Under a budget in latency a layer has no other candidates than these, and a layer that is missing stays
            dense.
    """

    network: float
    layers: Mapping[str, Mapping[Factorization, float]]
