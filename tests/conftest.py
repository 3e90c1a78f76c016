"""What several tests share.

Tests run in several processes, so that each gets along with one thread; and Ray is not to give way to them.
"""

import logging
import os
import socket
import subprocess
import uuid
from pathlib import Path

import pytest

from lrsearch import object_storage

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")
GS_BUCKET = "bucket"
S3_SECRET = "a-key-that-only-these-tests-know"
REAL_DATA = Path(os.environ.get("LRSEARCH_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_modifyitems(items):
    """Begin with the files that have slow tests: the last of them would leave the other processes without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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


@pytest.fixture(scope="session")
def s3_server():
    """A server on this machine that speaks S3; its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Machines:
    """What tells one user's machines apart: each has a cache of its own."""

    def __init__(self, monkeypatch, folder):
        self._monkeypatch, self._folder = monkeypatch, folder

    def move_to(self, name):
        """Go on as on another machine."""
        self._monkeypatch.setenv("XDG_CACHE_HOME", str(self._folder / name))


@pytest.fixture
def machines(tmp_path, monkeypatch):
    """Work on the machine ``here``, until moved elsewhere."""
    machines = Machines(monkeypatch, tmp_path / "machines")
    machines.move_to("here")
    return machines


@pytest.fixture
def s3_bucket(s3_server, machines, monkeypatch):
    """The URI of an empty bucket, which this process and those it starts may use."""
    import boto3

    object_storage._file_system.cache_clear()
    settings = {"AWS_ENDPOINT_URL": s3_server, "AWS_REGION": "us-east-1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "lrsearch")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def gs_server():
    """A server on this machine that speaks as Google's storage does; its address."""
    from gcp_storage_emulator.server import create_server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=GS_BUCKET)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def gs_bucket(gs_server, machines, monkeypatch):
    """The URI of a folder in a bucket of Google's kind, which this process and those it starts may use."""
    object_storage._file_system.cache_clear()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs_server)
    return f"gs://{GS_BUCKET}/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def bucket(s3_bucket):
    """The same, where it does not matter whose."""
    return s3_bucket
