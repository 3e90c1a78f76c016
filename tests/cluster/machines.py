"""Machines made of namespaces: each with processes, a network and a home folder of its own, like fresh ones."""

import os
import subprocess
import sys
import time
from pathlib import Path


class Machine:
    """Started before it is used; with its first process all others end."""

    def __init__(self, folder, name, before=()):
        """Give it a home, what is taken under ``/tmp``, and the network that commands with ``before`` are on."""
        self.home, private, ready = folder / name, folder / f"{name}-tmp", folder / f"{name}-ready"
        self.project = self.home / "project"
        taken = [Path("/tmp/ray"), Path(f"/tmp/lrsearch-{os.getuid()}")]
        for made in (self.project, private, *taken):
            made.mkdir(parents=True, exist_ok=True)
        mounts = "".join(f"mkdir {private / path.name}; mount --bind {private / path.name} {path}; " for path in taken)
        start = f"{mounts} touch {ready}; exec sleep infinity"
        new = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._outer = subprocess.Popen([*before, *new, "sh", "-ec", start])
        while not ready.exists():
            assert self._outer.poll() is None
            time.sleep(0.05)
        (self._first,) = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        commands = folder / "bin"
        commands.mkdir(exist_ok=True)
        (commands / "lrsearch").write_text('#!/bin/sh\nexec python -m lrsearch.cli "$@"\n')  # where it is not installed
        (commands / "lrsearch").chmod(0o755)
        path = [str(Path(sys.executable).parent), "/usr/sbin", "/usr/bin", "/sbin", "/bin", str(commands)]
        self._environment = {"HOME": str(self.home), "PATH": os.pathsep.join(path), "RAY_worker_niceness": "0"}
        self._environment |= {key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ}

    def run(self, script):
        """What lines of a shell print that are typed in the project's folder; they must succeed."""
        enter = ["nsenter", f"--target={self._first}", "--mount", "--pid", "--net", f"--wd={self.project}"]
        log = self.home / "typed.log"  # a file, for what goes on in the background keeps it open
        with log.open("w") as output:
            done = subprocess.run(
                [*enter, "bash", "-euc", script], stdout=output, stderr=output, env=self._environment, timeout=300
            )
        assert done.returncode == 0, (script, log.read_text())
        return log.read_text()

    def stop(self):
        self._outer.kill()
        self._outer.wait()
