"""A Ray cluster of several nodes on this machine: each a process group of its own, which can be killed as one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

TOKEN = "a-token-that-only-these-tests-know"
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",  # several nodes start at once on few cores
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # after which a machine cut off from the head gives up
    "RAY_worker_niceness": "0",
}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Node:
    """One ``ray start``."""

    def __init__(self, folder, *options, before=()):
        self._log = folder / f"node-{time.monotonic_ns()}.log"
        self.scratch = tempfile.mkdtemp(prefix="ray-")  # its own, as on another machine; sockets want a short path
        command = [*before, sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command += [f"--temp-dir={self.scratch}", "--object-store-memory=100000000"]
        environment = os.environ | SETTINGS
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, *options], stdout=log, stderr=log, env=environment, start_new_session=True, cwd=folder
            )

    def wait(self):
        """Until it is part of the cluster."""
        deadline = time.monotonic() + 150
        while "--block" not in self._log.read_text():  # its last words before it waits
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(self._log.read_text())
            time.sleep(0.1)
        return self

    def raylet(self):
        """The process that started this node's workers."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return next(int(pid) for pid in children if b"raylet" in Path(f"/proc/{pid}/cmdline").read_bytes())

    def kill(self):
        """Lose the machine: every process of it at once."""
        for worker in Path(f"/proc/{self.raylet()}/task/{self.raylet()}/children").read_text().split():
            with suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.kill(int(worker), signal.SIGKILL)
        self.stop()

    def stop(self):
        """End the node's own processes; its workers notice."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


class Nodes:
    """A head that runs no trials, with Ray's dashboard, and workers with one CPU each."""

    def __init__(self, folder):
        port, dashboard_port = free_port(), free_port()
        self.address, self.dashboard = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard_port}"
        self._folder = folder
        ports = f"--port={port}", f"--dashboard-port={dashboard_port}"
        self.head = Node(folder, "--head", *ports, "--num-cpus=0", "--include-dashboard=true").wait()
        self._nodes = [self.head]

    def join(self, *options):
        """Start another worker node."""
        self._nodes.append(Node(self._folder, f"--address={self.address}", "--num-cpus=1", *options))
        return self._nodes[-1]

    def stop(self):
        """End all that is left."""
        for node in reversed(self._nodes):
            node.stop()


def parent_of(process):
    """The process that started another, or None where that has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return None
