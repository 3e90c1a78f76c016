"""MLflow: one parent run per sweep, one child run per trial, and the pictures of the front.

MLflow itself is imported when a ``Tracker`` is made, since that takes seconds.
"""

import os

from lrsearch.tracking.store import find_runs, front_address, tracking_uri, ui_command
from lrsearch.tracking.tracker import Tracker

# The user's own settings win. MLflow reports its use over the network unless told not to, and its UI starts seven
# processes for jobs that a sweep does not have.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")

__all__ = ["Tracker", "find_runs", "front_address", "tracking_uri", "ui_command"]
