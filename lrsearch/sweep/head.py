"""Ray's head under watch: a driver that has lost it says so and how to go on, before Ray aborts it without a word."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

import ray

from lrsearch.observer import SweepObserver

_log = logging.getLogger(__name__)
_RAYS_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
_INTERRUPTED = 130


@contextmanager
def watched_head(command: str, observers: Sequence[SweepObserver]) -> Iterator[None]:
    """End this process, as an interruption would, when Ray's head does not answer for half as long as Ray waits.

    Nothing gentler helps: calls of Ray wait for the head where no signal reaches them, and then abort the process.

    Args:
        command: what goes on with the work when the head is there again.
        observers: told that the sweep stops, from another thread than the main one.
    """
    address, stopping = ray.get_runtime_context().gcs_address, Event()
    patience = float(os.environ.get(_RAYS_PATIENCE, "60")) / 2

    def watch() -> None:
        heard = time.monotonic()
        while not stopping.wait(patience / 10):
            if _answers(address, patience / 10):
                heard = time.monotonic()
            elif time.monotonic() > heard + patience:
                break
        else:
            return
        _log.error(
            "Ray's head at %s has not answered for %g seconds: interrupted; when it is there again, go on with: %s",
            address,
            patience,
            command,
        )
        for observer in observers:
            observer.sweep_stopped("interrupted")
        os._exit(_INTERRUPTED)

    Thread(target=watch, name="lrsearch-head", daemon=True).start()
    try:
        yield
    finally:
        stopping.set()


def _answers(address: str, patience: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), patience).close()
    except OSError:
        return False
    return True
