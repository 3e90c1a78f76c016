"""Is the search worth its name? Hypervolume over epochs spent, on analytic curves: ours, plain Optuna, random.

Run: python -m tests.benchmarks.search_quality [SEEDS]

All spend the same total of retraining epochs. "Plain" is what a user writes with Ray Tune and OptunaSearch: every
trial trains to its end, the sampler is Optuna's default, constraints are not known to it. The last table searches
each method alone with the same total. Medians of five seeds: ours .682, plain .659, random .628; only alds .676, pca
.613, l_rank .606, svd .589, tucker .583; plain's end after .47x of the epochs (ten seeds: .48x, .30 to .76).
"""

import math
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

import optuna

sys.path.insert(0, str(Path(__file__).parents[2]))

from lrsearch.front import hypervolume
from lrsearch.sweep.sampler import suggest
from lrsearch.trial import TrialSpec
from tests.sweep import simulator
from tests.sweep.simulator import DENSE, make_space, open_session

EPOCHS, TRIALS = 27, 60
LARGEST_DROP = 15.0
METHODS = {
    "alds": {"budget": {"params": {"uniform": [0.1, 0.8]}}, "max_subspaces": {"logint": [1, 16]}},
    "tucker": {"alpha": {"loguniform": [1.5, 10]}, "beta": {"loguniform": [0.25, 4]}},
    "svd": {"budget": {"params": {"uniform": [0.1, 0.8]}}},
    "l_rank": {"budget": {"params": {"uniform": [0.1, 0.8]}}},
    "pca": {"budget": {"params": {"uniform": [0.1, 0.8]}}},
}
LOSS = {"alds": (0.35, 5), "tucker": (0.18, 2.2), "svd": (0.45, 4), "l_rank": (0.4, 4), "pca": (0.38, 4)}
"""Method -> (share of the accuracy that is lost at size 0, how late the loss sets in): alds wins above a fifth of
the size, tucker below, the others nowhere."""


def size_of(spec):
    values = spec.hyperparameters
    return 1 / values["alpha"] if spec.method == "tucker" else values["budget"]["params"]


def accuracy(spec, epoch):
    """Saturates over the epochs, later for small networks; one best subspace number, one best beta; some noise."""
    size, values, (share, lateness) = size_of(spec), spec.hyperparameters, LOSS[spec.method]
    final = 99 * (1 - share * (1 - size) ** lateness)
    if spec.method == "alds":
        final -= 1.5 * abs(math.log2(values["max_subspaces"] / 4)) * (1 - size)
    if spec.method == "tucker":
        final -= 2.5 * math.log2(values["beta"] / 0.7) ** 2
    noise = random.Random(f"{spec.seed}-{epoch}").gauss(0, 0.15)
    return final - (4 + 8 * (1 - size)) * math.exp(-3 * epoch / EPOCHS) + noise


def measured(spec):
    size = size_of(spec)
    return simulator.metrics_of(size, accuracy(spec, 0))


class Progress:
    """Hypervolume after so many epochs: accuracy above its bound, 1 at the dense network's, times FLOPs removed."""

    def __init__(self):
        self.points, self.spent, self.course = [], 0, []

    def add(self, epochs, metrics):
        self.spent += epochs
        self.points.append([1 - metrics["accuracy_drop"] / LARGEST_DROP, 1 - metrics["flops"] / DENSE.flops])
        self.course.append((self.spent, hypervolume(self.points, [0.0, 0.0])))

    def reached(self, volume):
        """Epochs spent until then."""
        return next((spent for spent, reached in self.course if reached >= volume), math.inf)


def space_of(methods, seed):
    return make_space(
        sampler="gp",
        trials=10_000,
        epochs=EPOCHS,
        methods={name: METHODS[name] for name in methods},
        constraints={"accuracy_drop": LARGEST_DROP},
        search={"seed": seed, "rungs": {"first": 1, "factor": 3}},
    )


def ours(methods, seed):
    """A sweep of this package: its sampler, starting points and rungs."""
    space = space_of(methods, seed)
    progress = Progress()
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(space, Path(folder))
        while progress.spent < EPOCHS * TRIALS:
            spec = session.next_trial()
            steps = list(simulator.work(session, spec, accuracy, measured))
            epochs = steps.count("epoch saved")
            if epochs == EPOCHS:
                progress.add(epochs, _final(spec))
            else:
                progress.spent += epochs
    return progress


def plain(sampler, methods, seed):
    """Optuna as OptunaSearch calls it: ask, train to the end, tell."""
    space = space_of(methods, seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler(seed=seed))
    progress = Progress()
    for number in range(TRIALS):
        trial = study.ask()
        method, hyperparameters = suggest(trial, space)
        spec = TrialSpec(number, method, hyperparameters, {}, {}, {}, 100_003 * seed + number, None, "", "")
        metrics = _final(spec)
        study.tell(trial, [metrics["accuracy"], metrics["flops"]])
        progress.add(EPOCHS, metrics)
    return progress


def _final(spec):
    return simulator.metrics_of(size_of(spec), accuracy(spec, EPOCHS))


def main(seeds):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.fsync = lambda _: None
    results = {
        "ours": [ours(METHODS, seed) for seed in range(seeds)],
        "plain TPE": [plain(optuna.samplers.TPESampler, METHODS, seed) for seed in range(seeds)],
        "random": [plain(optuna.samplers.RandomSampler, METHODS, seed) for seed in range(seeds)],
    }
    baseline = results["plain TPE"]
    print(f"{EPOCHS * TRIALS} epochs each, medians of {seeds} seeds")
    print(f"{'search':12} {'hypervolume':>11} {'epochs to the final hypervolume of plain TPE':>46}")
    for name, runs in results.items():
        volume = statistics.median(run.course[-1][1] for run in runs)
        shares = [run.reached(b.course[-1][1]) / b.spent for run, b in zip(runs, baseline, strict=True)]
        print(f"{name:12} {volume:11.4f} {statistics.median(shares):45.2f}x")
    for method in METHODS:
        volume = statistics.median(ours([method], seed).course[-1][1] for seed in range(seeds))
        print(f"{'only ' + method:12} {volume:11.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
