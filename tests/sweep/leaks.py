"""Where a secret may have got to: files, and what anyone on this machine may read of its processes."""

import subprocess
from pathlib import Path


def command_lines_with(*secrets):
    return [line for line in _command_lines() if any(secret in line for secret in secrets)]


def files_with(*secrets, below):
    """The files of some folders that hold one."""
    words = [f"-e{secret}" for secret in secrets]
    found = subprocess.run(["grep", "-rlsF", *words, *below], capture_output=True, text=True)
    assert any(path.is_file() for folder in below for path in Path(folder).rglob("*"))
    return found.stdout.splitlines()


def _command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(errors="replace")
        except OSError:
            continue
