"""Ray, started or joined for a while: settings, signals, and errors as they were raised."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._raylet import Config  # type: ignore[attr-defined]
from ray.tune import TuneError

from lrsearch.errors import LrsearchError
from lrsearch.sweep import WORKER_SETTINGS

_DRIVER_FOLDER = "LRSEARCH_DRIVER_FOLDER"
_PATIENCE = 10.0
"""Seconds in which a cluster must answer."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine.

    Args:
        address: ``auto`` or ``host:port`` of a cluster that this machine is a node of, or None.

    Raises:
        LrsearchError: the cluster cannot be reached, or does not accept this user's token.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None and "://" in address:
        raise LrsearchError(
            f"--address is {address!r}, expected auto or host:port of a cluster that this machine is a node of; "
            "from another machine use: lrsearch submit SPACE.yaml --address http://HEAD:8265"
        )
    if address is not None:
        _require_answer(address)
    try:
        if not ray.is_initialized():
            Config.initialize("")  # our settings count though Ray was imported before they were made
        ray.init(
            # "local" rather than nothing, which would join whatever cluster was last started here, dead or alive.
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_worker_environment() if address else None,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        hint = "; is it there, and is this user's token its own (RAY_AUTH_TOKEN or ~/.ray/auth_token)?" * bool(address)
        raise LrsearchError(f"Ray could not be reached at {address or 'this machine'}: {reason}{hint}") from error
    try:
        with terminate_as_interrupt():  # again: starting Ray installs a handler that aborts
            yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Ray itself would try for many minutes.

    Raises:
        LrsearchError: nobody listens at ``host:port``.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except OSError as error:
        raise LrsearchError(
            f"Ray could not be reached at {address}: {error.strerror or error}; is a cluster running there?"
        ) from error


def machines() -> list[dict[str, float]]:
    """What each machine of the cluster has, of those that are there now."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise what a worker or a part of the driver raised, not Ray's wrapping of it."""
    try:
        yield
    except TuneError as error:
        fault: BaseException | None = error
        while isinstance(fault, TuneError):
            fault = fault.__cause__ or fault.__context__
        if isinstance(fault, (LrsearchError, OSError)):
            raise fault from None
        raise
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


def enter_drivers_folder() -> None:
    """Work where the driver does, if this node has that folder: relative paths and own code are found from there."""
    with suppress(OSError):
        os.chdir(os.environ[_DRIVER_FOLDER])


def _worker_environment() -> dict[str, Any]:
    """What workers inherit from the driver when it starts Ray itself, and else must be told."""
    return {
        "env_vars": {name: os.environ[name] for name in WORKER_SETTINGS} | {_DRIVER_FOLDER: str(Path.cwd())},
        "worker_process_setup_hook": enter_drivers_folder,
    }
