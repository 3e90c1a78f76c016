"""What Ray Tune runs on a worker: a trial's generator, one report after another."""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from lrsearch.errors import StorageError, hide_passwords
from lrsearch.files import replacing
from lrsearch.record import Report

REPORT_EVERY_SECONDS = 0.5


class TrialTrainable(tune.Trainable):
    """Runs the trial of its config; a failure of the trial is a result, only the death of the process is not."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the trial; imports PyTorch, once per worker."""
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run until there is something worth telling."""
        started, reports = time.monotonic(), []
        try:
            for report in self._reports:
                reports.append(asdict(report))
                if report.stage != "compress" or time.monotonic() - started > REPORT_EVERY_SECONDS:
                    break
        except Exception as error:
            return {"reports": reports, "done": True, "fault": self._fail(error)}
        return {"reports": reports, "done": bool(reports) and reports[-1]["stage"] == "done"}

    def cleanup(self) -> None:
        """Let go of the trial: its locks, and the memory it held on a GPU."""
        import torch

        self._reports.close()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial keeps its own state in its own folder, under the sweep."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as for saving."""

    def _begin(self, config: dict[str, Any]) -> None:
        from lrsearch.trial import run_trial

        self._folder = Path(config["folder"])
        self._reports: Generator[Report, None, None] = run_trial(config["spec"], self._folder)

    def _fail(self, error: Exception) -> str | None:
        """Record the failure as the trial's result; what is wrong where it is not the trial's, which then goes on."""
        from lrsearch.outcome import failed_result, failure_reason, write_result

        try:
            if isinstance(error, StorageError):
                raise error
            with replacing(self._folder / "error.txt") as temporary:
                temporary.write_text(hide_passwords("".join(traceback.format_exception(error))))
            write_result(self._folder, failed_result(failure_reason(error)))
        except StorageError as fault:
            return str(fault)
        return None
