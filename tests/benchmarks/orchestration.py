"""What orchestration costs: a sweep's wall time against its trials' own seconds shared among the workers.

Run: python tests/benchmarks/orchestration.py [SPACE.yaml]
"""

import sys
import tempfile
import time

from lrsearch import search


class Clock:
    """Notes when things happen."""

    def __init__(self):
        self.begun, self.workers, self.marks = time.monotonic(), 1, {}

    def sweep_started(self, info):
        self.workers = info.workers
        self.marks["Ray started"] = time.monotonic()

    def dense_finished(self, dense):
        self.marks["dense network ready"] = time.monotonic()

    def trial_started(self, number, method, hyperparameters):
        self.marks.setdefault("first trial on a worker", time.monotonic())

    def trial_finished(self, record, epochs, folder):
        self.marks["last trial ended"] = time.monotonic()

    def sweep_stopped(self, outcome):
        self.marks["sweep closed"] = time.monotonic()

    def __getattr__(self, name):
        return lambda *args: None


def main():
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else "search_spaces/digits.yaml"
        results = search(path, storage=folder, observers=[clock])
    for mark, moment in clock.marks.items():
        print(f"{moment - clock.begun:8.1f} s  {mark}")
    wall = clock.marks["last trial ended"] - clock.marks["first trial on a worker"]
    own = sum(trial.seconds or 0.0 for trial in results.trials)
    print(
        f"{len(results.trials)} trials, {own:.1f} s of their own on {clock.workers} workers, {wall:.1f} s of wall time"
    )
    print(f"wall / (own / workers) = {wall / (own / clock.workers):.3f}")


if __name__ == "__main__":
    main()
