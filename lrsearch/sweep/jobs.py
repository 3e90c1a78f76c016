"""lrsearch on a cluster from a machine outside it: its commands, run there as Ray jobs."""

from __future__ import annotations

import re
import shlex
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from lrsearch.errors import LrsearchError

_EXCLUDED = ["lrsearch_runs", "mlruns", ".git", ".venv", "__pycache__"]
_ENDED = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}
_RAYS_OWN = re.compile(r"^(Running entrypoint for job |\d{4}-\d\d-\d\d .*\bjob_manager\.py:).*\n", re.MULTILINE)
"""Lines of a job's log that its command did not write."""
_PACE = 1.0


class Job:
    """One command of lrsearch on the cluster; it goes on when this process ends."""

    def __init__(self, address: str, arguments: Sequence[str], folder: Path | None = None) -> None:
        """Start it on the cluster's head.

        Args:
            address: of the cluster's dashboard, such as ``http://head:8265``.
            arguments: of the command; whoever may see the cluster's jobs or processes sees them.
            folder: packed, but for what git or Ray are told to ignore, and unpacked as the command's and its
                workers' working directory.

        Raises:
            LrsearchError: the cluster cannot be reached, refuses this user's token, or the folder is too large.
        """
        self._address = address
        runtime_env = {"working_dir": str(folder), "excludes": _EXCLUDED} if folder is not None else {}
        with self._reached():
            self._client = JobSubmissionClient(address)
            self.id = self._client.submit_job(
                entrypoint=shlex.join(["python", "-m", "lrsearch.cli", *arguments]),
                submission_id=f"lrsearch-{uuid.uuid4().hex[:12]}",
                runtime_env=runtime_env,
            )

    def output(self) -> Iterator[str]:
        """What the command writes, as it comes, until it ends; to stop listening does not disturb it.

        Raises:
            LrsearchError: the cluster no longer answers, or the command could not even be started.
        """
        told = 0
        while True:
            with self._reached():
                job = self._client.get_job_info(self.id)
                log = self._client.get_job_logs(self.id)
            ended = job.status in _ENDED
            text = _RAYS_OWN.sub("", log if ended else log[: log.rfind("\n") + 1])
            yield text[told:]
            told = len(text)
            if ended:
                break
            time.sleep(_PACE)
        if job.driver_exit_code is None and job.status == JobStatus.FAILED:
            raise LrsearchError(f"job {self.id} could not be started: {_one_line(job.message)}")

    def succeeded(self) -> bool:
        """Whether the command ended with status 0."""
        with self._reached():
            return self._client.get_job_status(self.id) == JobStatus.SUCCEEDED

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError, RayError) as error:  # those of requests are OSErrors
            raise LrsearchError(
                f"Ray's Jobs API at {self._address} cannot be used: {_one_line(error)}; is it there, and is this "
                "user's token its own (RAY_AUTH_TOKEN or ~/.ray/auth_token)?"
            ) from error


def answer(address: str, arguments: Sequence[str]) -> str:
    """What a command of lrsearch prints when it is run on the cluster.

    Raises:
        LrsearchError: the cluster cannot be used, or what the command itself had to say.
    """
    job = Job(address, arguments)
    text = "".join(job.output())
    if not job.succeeded():
        raise LrsearchError(text.strip().rpartition("\n")[2].removeprefix("error: "))
    return text


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())
