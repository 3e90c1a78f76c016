"""What a trial says while it runs, and what is kept of it: the one vocabulary of every table, file and UI."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["complete", "failed", "pruned", "running"]

DIRECTIONS: dict[str, Literal["max", "min"]] = {
    "accuracy": "max",
    "accuracy_drop": "min",
    "params": "min",
    "flops": "min",
    "cr_p": "max",
    "cr_f": "max",
    "throughput": "max",
    "speedup": "max",
    "seconds": "min",
}
"""The metrics of a trial and which way is better; accuracies and reductions are in percent."""
TRAINED = ("accuracy", "accuracy_drop")
"""The metrics that retraining changes."""

TESTED = "test.json"
"""Where a trial's folder keeps what the test split says of it."""
CONFIRMED = "confirmed.json"
"""Where it keeps what other seeds gave: means and standard deviations."""
LAYERS = "layers.json"
"""Where it keeps what compressing did to each layer, in the order of the network."""
IMPORTANCE = "importance.json"
"""Where a sweep's ``front`` folder keeps what matters: method -> objective -> hyperparameter -> share."""


@dataclass(frozen=True)
class Report:
    """One step of a running trial: ``done`` of ``total`` parts of its stage, with the metrics known by then."""

    stage: Literal["compress", "measure", "retrain", "done"]
    done: int
    total: int
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class TrialRecord:
    """A trial as tables, JSON output and MLflow show it.

    ``accuracy`` and ``accuracy_drop`` are of the validation split, in percent and percentage points;
    ``test_accuracy`` is known for members of the front of a sweep that ended. ``speedup`` is measured beside the dense
    network in the same run, both deployed alike. ``throughput`` (images/s) is the ratio to the dense network deployed
    as suits that best, from the same run too, times the sweep's dense throughput, so that trials measured at
    different moments compare.
    """

    number: int
    state: State
    method: str
    params: int | None = None
    flops: int | None = None
    cr_p: float | None = None
    cr_f: float | None = None
    accuracy: float | None = None
    accuracy_drop: float | None = None
    throughput: float | None = None
    speedup: float | None = None
    seconds: float | None = None
    pareto: bool = False
    test_accuracy: float | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """As in the space file: nested values, no distributions."""
    reason: str | None = None
    """Why a trial failed or was pruned."""
    epochs: int | None = None
    """Of retraining that the trial was to have."""
    continues: int | None = None
    """The trial of fewer epochs whose training this one took further."""
    seed: int | None = None
    """Of every random choice of the trial."""
    extra: dict[str, float] = field(default_factory=dict)
    """What was measured beside the metrics of every trial, such as what its method alone can say."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON-ready data, keys in the order of the fields."""
        return asdict(self)


@dataclass(frozen=True)
class DenseRecord:
    """The dense network of a sweep: what every trial is judged against."""

    params: int
    flops: int
    accuracy: float
    test_accuracy: float
    throughput: float
    seconds: float = 0.0
    device: str = ""
    """The kind of device it was measured on, which all trials of its sweep are to be measured on."""
    deployment: dict[str, Any] = field(default_factory=dict)
    """The settings under which it is fastest, of those that the sweep searches: ``throughput`` is measured there."""
