"""What a trial costs the driver after hundreds and after thousands of others: seconds and memory.

Run: python -m tests.benchmarks.many_trials [TRIALS] [SAMPLER] [NOISE]

Trials are simulated and take no time. Sampling is measured apart. With MLflow; without Ray, whose share does not
depend on us: see orchestration.py. Accuracies scatter by NOISE points; without noise nearly every
trial joins the front.
"""

import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from lrsearch.observer import SweepInfo
from lrsearch.sweep.study import SweepStudy
from lrsearch.tracking import Tracker
from tests.sweep.simulator import DENSE, accuracy, make_space, open_session, simulate

WINDOW = 100


def timed(method, spent):
    """Add the seconds of each call to a list."""

    def call(*arguments):
        started = time.monotonic()
        result = method(*arguments)
        spent.append(time.monotonic() - started)
        return result

    return call


def scattered(noise):
    """Accuracies about the simulator's, the same whenever a trial is asked."""
    return lambda spec, epoch: accuracy(spec, epoch) - abs(random.Random(spec.seed).gauss(0, noise))


def main(trials, sampler, noise):
    learnt = scattered(noise)
    space = make_space(trials=trials, sampler=sampler)
    asking, overheads = [], []
    SweepStudy.ask = timed(SweepStudy.ask, asking)
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(None, Path(folder))
        tracker.sweep_started(
            SweepInfo("sim", Path(folder) / "sim", trials, 0, 1, dict(space.objectives), space.model_dump(mode="json"))
        )
        tracker.dense_finished(DENSE)
        session = open_session(space, Path(folder), [tracker])
        print(f"{'trials':>8} {'ms per trial':>13} {'ms to sample one':>17} {'on the front':>13} {'MB':>6}")
        while True:
            started = time.monotonic()
            spec = session.next_trial()
            if spec is None:
                break
            handed_out = time.monotonic()
            simulate(spec, session.store.trial(spec.number), learnt)
            simulated = time.monotonic()
            session.trial_started(spec)
            session.trial_ended(spec.number, worker_died=False)
            overheads.append(time.monotonic() - simulated + handed_out - started - asking[-1])
            if len(overheads) in {WINDOW, 2 * WINDOW, trials // 5, trials // 2, trials - WINDOW, trials}:
                own, ask = (1000 * statistics.median(values[-WINDOW:]) for values in (overheads, asking))
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                front = sum(record.pareto for record in session.records)
                print(f"{len(overheads):8} {own:13.1f} {ask:17.1f} {front:13} {memory:6.0f}", flush=True)
        early, late = (statistics.median(overheads[end - WINDOW : end]) for end in (2 * WINDOW, trials))
        print(f"overhead of the last {WINDOW} trials / of trials {WINDOW} to {2 * WINDOW}: {late / early:.2f}")
        tracker.sweep_stopped("interrupted")  # made-up trials have no networks to be logged


if __name__ == "__main__":
    arguments = sys.argv[1:] + ["5000", "tpe", "1"][len(sys.argv) - 1 :]
    main(int(arguments[0]), arguments[1], float(arguments[2]))
