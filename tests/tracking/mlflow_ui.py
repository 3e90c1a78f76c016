"""The MLflow UI on a free port, as ``lrsearch ui`` starts it."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from lrsearch.tracking import ui_command


@contextmanager
def mlflow_ui(storage: Path) -> Iterator[str]:
    """The UI's address, while it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(ui_command(None, storage, port), cwd=storage, stderr=subprocess.DEVNULL)
    try:
        fetch(f"http://127.0.0.1:{port}/version", patience=90)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def fetch(url: str, patience: float = 5.0) -> bytes:
    deadline = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return answer.read()
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
