"""Whether the driver keeps up with many trials at once: trials that only sleep and report, on made-up CPUs.

Run: python -m tests.benchmarks.concurrent_trials [CONCURRENT [ROUNDS [SECONDS]]]

Every trial reports once a second, as epochs would. Workers are slow to start on few cores, so that the clock runs
from the moment when as many trials have ended as run side by side.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import ray
from ray import tune

from lrsearch.sweep import run
from lrsearch.sweep.session import SweepSession
from lrsearch.sweep.store import SweepStore
from tests.sweep.simulator import DENSE, make_space, simulate


class Sleeper(tune.Trainable):
    """A trial without PyTorch, of which many fit into one machine's memory."""

    def setup(self, config):
        self.reset_config(config)

    def reset_config(self, config):
        self.folder, self.left = Path(config["folder"]), config["spec"].seconds
        return True

    def step(self):
        time.sleep(1)
        self.left -= 1
        if self.left <= 0:
            (self.folder / "simulated.json").rename(self.folder / "result.json")
        metrics = {"epoch": 1.0, "loss": 1.0, "accuracy": 90.0, "lr": 0.1}
        report = {"stage": "retrain", "done": 1, "total": 1, "metrics": metrics}
        return {"reports": [report], "done": self.left <= 0}

    def save_checkpoint(self, checkpoint_dir):
        """Nothing to keep."""


class Clock:
    """Notes when trials end, and what the driver's processor did meanwhile."""

    def __init__(self, concurrent):
        self.concurrent, self.ended, self.begun = concurrent, 0, None

    def trial_finished(self, *_):
        self.ended += 1
        if self.ended == self.concurrent:
            self.begun = self.now()
        self.last = self.now()

    def now(self):
        used = resource.getrusage(resource.RUSAGE_SELF)
        return time.monotonic(), used.ru_utime + used.ru_stime

    def __getattr__(self, name):
        return lambda *args: None


def sleeping(seconds):
    """Replace what a trial is by sleeping, and keep the rest of a sweep."""
    plan = SweepSession._spec

    def spec(session, *asked):
        whole = plan(session, *asked)
        folder = session.store.trial(whole.number)
        simulate(whole, folder)
        (folder / "result.json").rename(folder / "simulated.json")
        return SimpleNamespace(
            number=whole.number, method=whole.method, hyperparameters=whole.hyperparameters, seconds=seconds
        )

    SweepSession._spec = spec
    run.TrialTrainable = Sleeper
    run.prepared_dense = lambda space, store, observers: (DENSE, Path("dense"))
    run._test_front = lambda session: None


def main(concurrent=64, rounds=4, seconds=10):
    sleeping(seconds)
    clock, start = Clock(concurrent), ray.init
    run.ray.init = lambda **options: start(**options | {"num_cpus": concurrent})
    with tempfile.TemporaryDirectory() as folder:
        store = SweepStore(Path(folder), "many")
        store.create()
        began = time.monotonic()
        run.run_sweep(make_space(trials=concurrent * rounds, sampler="tpe"), store, [clock])
        whole = time.monotonic() - began
    (begin, busy_before), (end, busy_after) = clock.begun, clock.last
    wall, ideal = end - begin, seconds * (rounds - 1)
    print(f"{concurrent * rounds} trials of {seconds} s, {concurrent} at a time: {whole:.1f} s in all")
    print(
        f"after the first {concurrent}: {wall:.1f} s of wall time, {ideal} s without any overhead: x {wall / ideal:.3f}"
    )
    print(f"driver busy {100 * (busy_after - busy_before) / wall:.0f} % of one core")
    print(f"overhead per trial: {1000 * (wall - ideal) / (concurrent * (rounds - 1)):.0f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
