"""A study's database that is away for a while: what was asked of it is asked again until it answers."""

from __future__ import annotations

import functools
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from lrsearch.errors import LrsearchError

P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger(__name__)
_PAUSE = 1.0
"""Seconds between two attempts."""
_PATIENCE = 900.0
"""Seconds after which a sweep that its database has left is put aside."""


def patient(ask: Callable[P, T]) -> Callable[P, T]:
    """Repeat a question, which must do no harm when it was half or wholly answered, while no answer comes.

    Raises:
        LrsearchError: the database stays away.
    """

    @functools.wraps(ask)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        away_since: float | None = None
        while True:
            try:
                return ask(*args, **kwargs)
            except (StorageInternalError, DBAPIError) as error:
                reason = _absence(error)
                if reason is None:
                    raise
                now = time.monotonic()
                if away_since is None:
                    away_since = now
                    _log.warning("the study's database does not answer (%s): the sweep waits for it", reason)
                if now - away_since > _PATIENCE:
                    raise LrsearchError(
                        f"the study's database stays away ({reason}); resume when it is back"
                    ) from error
                time.sleep(_PAUSE)

    return repeated


def _absence(error: Exception) -> str | None:
    """Why a server did not answer, or None where it did; a file is never away."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if not isinstance(cause, (OperationalError, InterfaceError)) or isinstance(cause.orig, sqlite3.Error):
        return None
    return str(cause.orig).splitlines()[0]
