"""Ray, started or joined for a while: settings, signals, and errors as they were raised."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths of a space file mean the driver's folder

import ray

from lrsearch.errors import LrsearchError


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A Ray cluster, or Ray on this machine for None.

    Raises:
        LrsearchError: there is none at that address.
    """
    try:
        ray.init(
            # "local" rather than nothing, which would join whatever cluster was last started here, dead or alive.
            address=address or os.environ.get("RAY_ADDRESS") or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise LrsearchError(f"Ray could not be reached at {address or 'this machine'}: {error}") from error
    try:
        with terminate_as_interrupt():  # again: starting Ray installs a handler that aborts
            yield
    finally:
        ray.shutdown()


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise what a worker raised, not Ray's wrapping of it."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, LrsearchError):
            raise error.cause from None
        raise


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM (a scheduler's or container's way of stopping us) as Ctrl+C."""

    def interrupt(_: int, frame: Any) -> None:
        on_interrupt = signal.getsignal(signal.SIGINT)
        if not callable(on_interrupt):  # ignored, as under nohup
            raise KeyboardInterrupt
        on_interrupt(signal.SIGINT, frame)

    previous = None
    with suppress(ValueError):  # only the main thread may install handlers
        previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
