"""Where the MLflow UI shows a sweep's runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_SERVER = "http://127.0.0.1:5000"
"""Where ``lrsearch ui`` listens unless told otherwise."""


@dataclass(frozen=True)
class RunLinks:
    """The runs of one sweep.

    Attributes:
        experiment_id: of the sweep.
        parent_id: of the run that stands for the whole sweep.
        trials: number -> id of the run, for the trials that have one.
        server: the UI's address, as far as is known.
    """

    experiment_id: str
    parent_id: str
    trials: Mapping[int, str] = field(default_factory=dict)
    server: str = DEFAULT_SERVER

    def parent(self, artifact: str = "") -> str:
        """The parent run, or one of its artifacts, as what follows the UI's address."""
        return self._fragment(self.parent_id, artifact)

    def trial(self, number: int) -> str | None:
        """A trial's run, or None where it has none."""
        return self._fragment(self.trials[number]) if number in self.trials else None

    def _fragment(self, run_id: str, artifact: str = "") -> str:
        tail = f"/artifacts/{artifact}" if artifact else ""
        # Without workflowType MLflow 3 opens its pages for language models.
        return f"#/experiments/{self.experiment_id}/runs/{run_id}{tail}?workflowType=machine_learning"
