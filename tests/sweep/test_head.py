"""What a driver does when Ray's head answers no more; `test_cluster.py` kills a real one."""

import subprocess
import sys

SCRIPT = """
import os, socket, sys, time
from types import SimpleNamespace

os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] = "1"

import ray
from lrsearch.sweep.head import watched_head

head = socket.create_server(("127.0.0.1", 0))
address = f"127.0.0.1:{head.getsockname()[1]}"
ray.get_runtime_context = lambda: SimpleNamespace(gcs_address=address)
with watched_head("lrsearch resume s", [SimpleNamespace(sweep_stopped=lambda outcome: print(outcome, flush=True))]):
    time.sleep(1)
    print("heard", flush=True)
    if sys.argv[1] == "within":
        head.close()
        time.sleep(30)
head.close()
time.sleep(1)
"""


def run(moment):
    return subprocess.run([sys.executable, "-c", SCRIPT, moment], capture_output=True, text=True, timeout=60)


def test_driver_ends_as_interrupted_and_says_how_to_go_on():
    done = run("within")

    assert (done.returncode, done.stdout) == (130, "heard\ninterrupted\n"), done.stderr
    assert "has not answered for 0.5 seconds: interrupted" in done.stderr
    assert done.stderr.endswith("go on with: lrsearch resume s\n")


def test_head_that_goes_when_its_driver_has_ended_is_not_missed():
    done = run("afterwards")

    assert (done.returncode, done.stdout, done.stderr) == (0, "heard\n", "")
