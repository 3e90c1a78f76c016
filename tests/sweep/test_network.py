"""A sweep on two machines whose network is slow, comes and goes, and at last is gone."""

import subprocess
import sys

import pytest

from tests.sweep.network import HEAD, WORKER, Cable
from tests.sweep.ray_nodes import TOKEN, Node, free_port
from tests.sweep.test_kill import Sweep

pytestmark = pytest.mark.slow

SLOW_NETWORK = """
import time
from lrsearch.models.digits import digits_resnet

def network(width):
    model = digits_resnet(width)
    model.register_forward_pre_hook(lambda *_: time.sleep(0.05))
    return model
"""
IMPATIENT = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "10",
}
"""Ray's head misses a machine that it has not heard for some ten seconds, instead of a minute or two."""


class DividedCluster:
    """A head without CPUs at one end of a cable, and machines that join at either."""

    def __init__(self, folder):
        self.cable, self.address, self._folder = Cable(), f"{HEAD}:{free_port()}", folder
        port = self.address.rpartition(":")[2]
        self._nodes = []
        self._start(HEAD, "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")

    def join(self, end):
        return self._start(end, f"--address={self.address}", "--num-cpus=1")

    def _start(self, end, *options):
        node = Node(self._folder, f"--node-ip-address={end}", *options, before=self.cable.inside(end))
        self._nodes.append(node)
        return node.wait()

    def stop(self):
        for node in reversed(self._nodes):
            node.stop()
        self.cable.remove()


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    for name, value in IMPATIENT.items():
        monkeypatch.setenv(name, value)
    cluster = DividedCluster(tmp_path_factory.mktemp("nodes"))
    yield cluster
    cluster.stop()


class CabledSweep(Sweep):
    """A small real sweep, whose driver runs at the head's end."""

    def __init__(self, folder, cluster):
        super().__init__(folder, trials=4)
        self._cluster = cluster

    def start(self, *command):
        before = self._cluster.cable.inside(HEAD)
        options = ["--storage", str(self.storage), "--address", self._cluster.address]
        return subprocess.Popen(
            [*before, sys.executable, "-m", "lrsearch.cli", *command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def test_sweep_on_a_network_that_is_slow_and_flaps_and_is_lost(tmp_path, cluster, monkeypatch):
    """Outages cost no machine, and no trial anything; nor does the loss of the only machine, once another is there."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SLOW_NETWORK)
    sweep = CabledSweep(tmp_path, cluster)
    sweep.space.write_text(sweep.space.read_text().replace("digits_resnet", "'mine:network'"))
    machine = cluster.join(WORKER)
    driver = sweep.search()
    for times, seconds in ((3, 0.3), (3, 1.0), (1, 3.0)):
        sweep.wait_for_new("trials/*/checkpoint.pt", driver)
        cluster.cable.flap(times, seconds)
    cluster.cable.unplug()  # under the third or fourth of four trials
    machine.kill()  # which nobody hears; it would keep its lock on the trial, for here all share one disk
    cluster.join(HEAD)
    output, _ = driver.communicate(timeout=300)

    assert driver.returncode == 0, output
    sweep.check_end()
