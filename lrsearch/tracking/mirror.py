"""One MLflow run as it should be, and how much of it MLflow already holds."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lrsearch.tracking.store import KEY, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_log = logging.getLogger(__name__)
_METRICS_PER_BATCH, _PARAMS_PER_BATCH, _TAGS_PER_BATCH = 800, 100, 100
_TEXT_LIMIT = 4000
_TERMINAL = ("FINISHED", "FAILED")
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")


class RunMirror:
    """What one run should hold; ``send`` writes what MLflow lacks, as often as it is called.

    A terminal status is the last thing written, so a run that has one lacks nothing that was known by then.
    """

    def __init__(self, key: str, name: str, parent: RunMirror | None = None) -> None:
        self.run_id: str | None = None
        self.key = key
        self._name = name
        self._parent = parent
        self._metrics: dict[tuple[str, int], Metric] = {}
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._files: list[Path] = []
        self._status = "RUNNING"
        self._sent_steps: dict[str, set[int]] = {}
        self._sent_params: set[str] = set()
        self._sent_tags: dict[str, str] = {}
        self._sent_status = ""
        self._creating = False

    def want_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Add metrics at a step; what is known of that step already stays."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for name, value in values.items():
            key = _legal(name)
            # MLflow takes two entries of one time for one: to send again after a lost answer does no harm.
            self._metrics.setdefault((key, step), Metric(key, value, now, step))

    def want_params(self, values: Mapping[str, str]) -> None:
        """Add parameters; MLflow never changes one, so those it knows stay."""
        self._params.update({_legal(name): value[:_TEXT_LIMIT] for name, value in values.items()})

    def want_tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._tags.update({name: value[:_TEXT_LIMIT] for name, value in values.items()})

    def want_status(self, status: str) -> None:
        """Set the status."""
        self._status = status

    def want_file(self, path: Path) -> None:
        """Add a local file as an artifact, unless the run is over and so has it."""
        if not self._is_over():
            self._files.append(path)

    def adopt(self, client: MlflowClient, run: Run) -> None:
        """Take over a run that an earlier driver left.

        A run that is over has every step up to the last; an open one may have gaps, so its metrics are looked
        at step by step.
        """
        self.run_id = run.info.run_id
        self._sent_status = run.info.status
        self._sent_tags = dict(run.data.tags)
        self._sent_params = set(run.data.params)
        for metric in run.data.to_proto().metrics:
            if metric.step == 0 or self._sent_status in _TERMINAL:
                self._sent_steps[metric.key] = set(range(metric.step + 1))
            else:
                history = client.get_metric_history(run.info.run_id, metric.key)
                self._sent_steps[metric.key] = {entry.step for entry in history}
        if self._is_over():
            self._files.clear()

    def unsent(self) -> bool:
        """Whether MLflow lacks anything."""
        self._forget_sent()
        return bool(self._metrics or self._params or self._tags or self._files or self._status != self._sent_status)

    def find_or_create(self, client: MlflowClient, experiment_id: str) -> str:
        """The run's id; the run is created where it is not known yet."""
        if self.run_id is None and self._creating:  # and the answer was lost: the run may be there
            for run in client.search_runs([experiment_id], f"tags.`{KEY}` = '{self.key}'", max_results=1):
                self.adopt(client, run)
        self._creating = True
        if self.run_id is None:
            tags = {KEY: self.key, "mlflow.source.name": "lrsearch"}
            if self._parent is not None and self._parent.run_id is not None:
                tags["mlflow.parentRunId"] = self._parent.run_id
            self.run_id = client.create_run(experiment_id, tags=tags, run_name=self._name).info.run_id
            self._sent_status = "RUNNING"
        return self.run_id

    def send(self, client: MlflowClient, experiment_id: str) -> None:
        """Write what MLflow lacks, creating the run if need be; the status comes last.

        A refusal (someone deleted the run, say) is logged and what was refused is dropped.

        Raises:
            Exception: MLflow could not be reached; what is unsent is kept.
        """
        run_id = self.find_or_create(client, experiment_id)
        self._forget_sent()
        if self._refused(self._send_content, client, run_id):
            self._metrics, self._params, self._tags, self._files = {}, {}, {}, []
        if self._status != self._sent_status:
            self._refused(
                client.update_run if self._status == "RUNNING" else client.set_terminated,
                run_id,
                self._status,
            )
            self._sent_status = self._status

    def _is_over(self) -> bool:
        return self._sent_status == self._status and self._status in _TERMINAL

    def _refused(self, write: Callable[..., object], *arguments: object) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            write(*arguments)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            _log.warning("MLflow refuses entries of run %s: %s", self.key, first_line(error))
            return True
        return False

    def _forget_sent(self) -> None:
        self._metrics = {
            (key, step): metric
            for (key, step), metric in self._metrics.items()
            if step not in self._sent_steps.get(key, ())
        }
        self._params = {key: value for key, value in self._params.items() if key not in self._sent_params}
        self._tags = {key: value for key, value in self._tags.items() if self._sent_tags.get(key) != value}

    def _send_content(self, client: MlflowClient, run_id: str) -> None:
        """All that is unsent but the status, in as few batches as MLflow's limits allow."""
        from mlflow.entities import Param, RunTag

        while self._metrics or self._params or self._tags:
            metrics = dict(islice(self._metrics.items(), _METRICS_PER_BATCH))
            params = dict(islice(self._params.items(), _PARAMS_PER_BATCH))
            tags = dict(islice(self._tags.items(), _TAGS_PER_BATCH))
            client.log_batch(
                run_id,
                list(metrics.values()),
                [Param(key, value) for key, value in params.items()],
                [RunTag(key, value) for key, value in tags.items()],
            )
            for key, step in metrics:
                self._sent_steps.setdefault(key, set()).add(step)
            self._sent_params.update(params)
            self._sent_tags.update(tags)
            self._forget_sent()
        while self._files:
            if self._files[-1].exists():
                client.log_artifact(run_id, str(self._files[-1]))
            self._files.pop()


def _legal(name: str) -> str:
    """A name of a metric or parameter with what MLflow does not allow in it replaced."""
    return re.sub(r"[^\w\-. :/]", "_", name)
