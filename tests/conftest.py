"""What several tests share."""

import os
import subprocess
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("LRSEARCH_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with CIFAR-10 as JPEG files and trained ResNet-20 weights, where a machine has one."""
    return REAL_DATA


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 2 MiB, where the tests may make one."""
    disk = tmp_path / "runs" / "s"
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
