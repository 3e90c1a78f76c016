"""Two machines with one cable between them: network namespaces of this one, joined by a virtual Ethernet link."""

import shutil
import subprocess
import time
import uuid

import pytest

HEAD, WORKER = "10.77.0.1", "10.77.0.2"
SLOW = ["tbf", "rate", "8mbit", "burst", "16kbit", "latency", "300ms"]
"""A hundred times slower than a usual network; what it cannot send it holds back, and then drops."""

RETRIES = 5
"""After which, some ten seconds, a connection is given up as lost, instead of Linux's quarter of an hour."""


class Cable:
    """The namespaces and the link; commands are run in them by what ``inside`` puts before them."""

    def __init__(self):
        name = uuid.uuid4().hex[:6]
        self._names = {HEAD: f"lr-{name}-h", WORKER: f"lr-{name}-w"}
        if shutil.which("ip") is None or shutil.which("tc") is None:
            pytest.skip("iproute2 is not installed")
        if subprocess.run(["ip", "netns", "add", self._names[HEAD]], capture_output=True).returncode:
            pytest.skip("only root may make network namespaces")
        _run("ip", "netns", "add", self._names[WORKER])
        ends = {HEAD: f"lr{name}h", WORKER: f"lr{name}w"}
        self._link = ends[HEAD]
        _run("ip", "link", "add", ends[HEAD], "type", "veth", "peer", "name", ends[WORKER])
        for address, end in ends.items():
            _run("ip", "link", "set", end, "netns", self._names[address])
            for change in (
                ["ip", "address", "add", f"{address}/24", "dev", end],
                ["ip", "link", "set", "lo", "up"],
                ["ip", "link", "set", end, "up"],
                ["ip", "route", "add", "default", "dev", end],  # by which machines know their own address
                ["tc", "qdisc", "add", "dev", end, "root", *SLOW],
                ["sh", "-c", f"echo {RETRIES} > /proc/sys/net/ipv4/tcp_retries2"],
            ):
                _run(*self.inside(address), *change)

    def inside(self, address):
        """What to put before a command that is to be run on the machine of an address."""
        return ["ip", "netns", "exec", self._names[address]]

    def unplug(self):
        _run(*self.inside(HEAD), "ip", "link", "set", self._link, "down")

    def plug(self):
        _run(*self.inside(HEAD), "ip", "link", "set", self._link, "up")

    def flap(self, times, seconds):
        """Down and up again, so many times."""
        for _ in range(times):
            self.unplug()
            time.sleep(seconds)
            self.plug()
            time.sleep(seconds)

    def remove(self):
        for name in self._names.values():
            _run("ip", "netns", "delete", name)


def _run(*command):
    subprocess.run(command, check=True, capture_output=True)
