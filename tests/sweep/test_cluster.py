"""Several machines: nodes die and join under a sweep, which counts every trial once; strangers are turned away."""

import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from lrsearch.results import status
from tests.sweep.leaks import command_lines_with, files_with
from tests.sweep.ray_nodes import TOKEN, Nodes, parent_of
from tests.sweep.test_kill import Sweep

pytestmark = pytest.mark.slow

HELD_NETWORK = """
import time
from pathlib import Path
from lrsearch.models.digits import digits_resnet

def network(width):
    while Path("hold").exists():
        time.sleep(0.1)
    return digits_resnet(width)
"""


KINDS = ("LOOM", "ABACUS")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    pytest.importorskip("aiohttp_cors", reason="Ray's dashboard, of the extra `cluster`, is not installed")
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    yield nodes
    nodes.stop()


@pytest.fixture(scope="module")
def machines(nodes):
    """Two machines, each with a device of its own kind that stands for a GPU."""
    kinds = [json.dumps({f"accelerator_type:{kind}": 1}) for kind in KINDS]
    machines = [nodes.join("--num-gpus=1", "--resources", kind) for kind in kinds]
    return [machine.wait() for machine in machines]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(HELD_NETWORK)
    sweep = Sweep(tmp_path, trials=6)
    sweep.space.write_text(sweep.space.read_text().replace("digits_resnet", "'mine:network'"))
    return sweep


def lrsearch(*arguments):
    command = [sys.executable, "-m", "lrsearch.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def running_on(node, sweep):
    """The trials whose locks a node's workers hold, or held last."""
    locks = sweep.folder.glob("trials/*/lock")
    return [lock.parent for lock in locks if parent_of(lock.read_text()) == node.raylet()]


def test_sweep_submitted_from_a_laptop_outlives_it_on_the_kind_of_machine_it_names(sweep, nodes, machines, tmp_path):
    shared = tmp_path / "shared"
    options = ["--storage", str(shared), "--address", nodes.dashboard]
    kind = ["--set", "resources.accelerator=ABACUS"]
    laptop = lrsearch("submit", "space.yaml", "--name", "s", "--trials", "3", *kind, *options)
    told = []
    while "[1/3] trial" not in "".join(told):
        told.append(laptop.stdout.readline())
        assert told[-1], "".join(told)
    laptop.kill()
    sweep.folder = shared / "s"
    assert sweep.folder / "trials" / "0" in running_on(machines[KINDS.index("ABACUS")], sweep)

    deadline = time.monotonic() + 120
    while not list(shared.glob("s/trials/*/test.json")):  # of the front, when all trials have ended
        assert time.monotonic() < deadline
        time.sleep(0.5)

    state = status("s", str(shared))
    assert (state["finished"] + state["pruned"], state["trials"]) == (3, 3)
    unknown = lrsearch("status", "other", "--format", "json", *options)
    output, _ = unknown.communicate(timeout=120)
    assert unknown.returncode == 1 and "error: no sweep 'other' in " in output


def test_stranger_is_turned_away(nodes, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-token-of-a-stranger")
    script = "import sys; from lrsearch.sweep.cluster import connected; connected(sys.argv[1]).__enter__()"
    driver = subprocess.run([sys.executable, "-c", script, nodes.address], capture_output=True, text=True, timeout=120)
    assert driver.returncode == 1
    assert "InvalidAuthToken" in driver.stderr
    assert "LrsearchError: Ray could not be reached" in driver.stderr

    laptop = lrsearch("status", "--storage", "/shared", "--address", nodes.dashboard)
    output, _ = laptop.communicate(timeout=120)
    assert laptop.returncode == 1
    assert "error: Ray's Jobs API" in output and "RAY_AUTH_TOKEN" in output

    with pytest.raises(HTTPError, match=r"401|403"):
        urlopen(f"{nodes.dashboard}/api/jobs/", timeout=10)


def test_dashboard_and_its_jobs_listen_on_this_machine_alone(nodes):
    port = int(nodes.dashboard.rpartition(":")[2])
    tables = [Path("/proc/net/tcp").read_text(), Path("/proc/net/tcp6").read_text()]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    listening = {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
    assert listening == {"0100007F"}


def test_kinds_of_machines_are_not_mixed_where_speed_counts(sweep, nodes, machines):
    objectives = ["--set", "objectives={throughput: max}", "--set", "resources.gpus=1"]
    driver = sweep.start("search", str(sweep.space), "--name", "s", "--address", nodes.address, *objectives)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "error: Ray has machines with ABACUS and with LOOM" in output


def test_nodes_die_and_join_and_the_driver_and_the_head_die_too(sweep, nodes, machines, tmp_path, monkeypatch):
    """Last of all, for it leaves no cluster."""
    driver = sweep.start("search", str(sweep.space), "--name", "s", "--address", nodes.address)
    trial = sweep.wait_for_new("trials/*/checkpoint.pt", driver).parent
    assert not command_lines_with(TOKEN)
    hold = tmp_path / "hold"
    hold.touch()
    next(machine for machine in machines if trial in running_on(machine, sweep)).kill()
    joined = nodes.join().wait()
    while not running_on(joined, sweep):
        assert driver.poll() is None, driver.stdout.read()
        time.sleep(0.1)
    hold.unlink()
    sweep.wait_for_new("trials/*/checkpoint.pt", driver)
    driver.kill()
    driver.communicate()
    sweep.take_stock()

    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
    resume = ["resume", "s", "--address", nodes.address]
    driver = sweep.start(*resume)
    sweep.wait_for_new("trials/*/checkpoint.pt", driver)
    assert not files_with(TOKEN, below=[tmp_path, *(node.scratch for node in (nodes.head, joined))])
    nodes.head.kill()
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, output
    command = f"lrsearch {' '.join(resume[:2])} --storage {sweep.storage} {' '.join(resume[2:])}"
    assert "Ray's head at " in output and " has not answered for 5 seconds: interrupted" in output
    assert f"go on with: {command}\n" in output
    sweep.take_stock()

    sweep.run_to_end("resume", "s")

    sweep.check_end()
