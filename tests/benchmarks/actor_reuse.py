"""What a new worker process for each trial costs, and whether one that has run others changes a trial.

Run: python tests/benchmarks/actor_reuse.py [TRIALS]

The same sweep of short trials, one at a time, with Ray Tune's actors reused as lrsearch does and made anew.
"""

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

from ray import tune

from lrsearch.space import parse_space
from lrsearch.sweep import run
from lrsearch.sweep.store import SweepStore

SPACE = {
    "model": {"name": "digits_resnet", "width": 16},
    "data": {"name": "digits"},
    "train": {"epochs": 1},
    "retrain": {"epochs": 1},
    "objectives": {"accuracy": "max", "params": "min"},
    "methods": {"alds": {}, "svd": {}, "tucker": {}, "dlrt": {}},
    "measure": {"seconds": 0.1},
    "resources": {"workers": 1},
}


class Clock:
    """Notes when trials end."""

    def __init__(self):
        self.ends = []

    def trial_finished(self, *_):
        self.ends.append(time.monotonic())

    def __getattr__(self, name):
        return lambda *_: None


def sweep(trials, reuse, folder):
    """The weights of all networks; prints the median time from one trial's end to the next."""
    store, clock = SweepStore(folder, "reused" if reuse else "fresh"), Clock()
    store.create()
    run.tune.TuneConfig = lambda **settings: TUNE_CONFIG(**settings | {"reuse_actors": reuse})
    run.run_sweep(parse_space(SPACE | {"search": {"trials": trials, "sampler": "random"}}), store, [clock])
    median = statistics.median(after - before for before, after in itertools.pairwise(clock.ends))
    print(f"{store.name}: {median:.2f} s of wall time for a trial, median of {trials}", flush=True)
    return [(store.trial(number) / "weights.safetensors").read_bytes() for number in range(trials)]


def main(trials):
    with tempfile.TemporaryDirectory() as folder:
        reused, fresh = (sweep(trials, reuse, Path(folder)) for reuse in (True, False))
    same = sum(one == other for one, other in zip(reused, fresh, strict=True))
    print(f"networks that are the same bit for bit: {same} of {trials}")


TUNE_CONFIG = tune.TuneConfig

if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 13)
