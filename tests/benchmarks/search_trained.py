"""Is the search worth its name on networks that are really trained? Ours, plain Ray Tune + OptunaSearch, random.

Usage: python -m tests.benchmarks.search_trained FOLDER [--network digits|resnet20] [--trials 25] [--seeds 5]
                                                  [--first-rung 2] [--objectives accuracy cr_f speedup]
       python -m tests.benchmarks.search_trained FOLDER --through-ray

Every search spends the same epochs of retraining. Ours decides as a sweep with one worker does: starting points,
sampler, rungs, constraints. "Plain" is what a user writes: Ray's ``OptunaSearch`` with its default sampler over one
flat space, every trial trained to its end; "random" is the same with Optuna's random sampler. ``only METHOD`` is ours
with one method. Plain's searcher is called here as a ``Tuner`` calls it; ``--through-ray`` compares the points with
those that a real one tries.

Trials are those of ``trained_trials.py``, kept in FOLDER. The hypervolume is that of the objectives as gains over the
dense network, of accuracy from its bound on (1 at the dense network's): by default the objectives of a sweep that asks
for small, fast and accurate networks, accuracy, FLOPs removed and speed-up.

Measured with 225 epochs each (nine retrain a network), on networks where no method is the best in everything, as ft is
on a digits network four times as wide. Medians after a quarter, half, three quarters and all of the epochs; then when
ours reached plain's end:

- digits, five seeds: ours .912 1.099 1.131 1.150, plain .772 .914 1.023 1.076, random .772 .892 .951 .989; .36x (.28
  .28 .36 .53 .69); only ft 1.141, alds_output .615, alds .569, tucker .546, pca .534, svd_energy .485. Twenty seeds:
  ours .948 1.090 1.121 1.141, plain .598 .902 1.009 1.088, random .598 .879 .964 1.017; .52x; only ft 1.141 again,
  which by then has tried nearly all that it can here.
- ResNet-20, five seeds: ours .752 .957 .975 .988, plain .623 .818 .884 .884, random .623 .836 .836 .910; .46x (.28 .36
  .46 .46 .49); only alds_output .925, tucker .733, alds .504, ft .470.

Of accuracy and parameters alone (``--objectives accuracy cr_p``) one method is best nearly everywhere, and a sweep over
all has to find that out first. Digits: ours .943, plain .918, random .941, only alds .945; .62x. ResNet-20, 135 epochs:
ours .694, plain .637, random .634, only alds_output .696; .47x.
"""

import argparse
import itertools
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from lrsearch.distributions import Choice, Distribution, IntUniform
from lrsearch.front import gain_of, hypervolume
from lrsearch.outcome import write_result
from lrsearch.record import Report
from lrsearch.space import Space
from lrsearch.sweep.cluster import connected
from lrsearch.sweep.session import SweepSession
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import SweepStudy
from tests.benchmarks.trained_trials import NETWORKS, OBJECTIVES, Trials


@dataclass(frozen=True)
class Spent:
    """A trial of a search, and the epochs that the search had spent when it ended."""

    epochs: int
    method: str
    metrics: Mapping[str, float] | None
    """None where it did not complete."""


class Bench(Trials):
    """Searches among the trials of one network."""

    def gains(self, metrics: Mapping[str, float]) -> list[float]:
        """What hypervolumes are taken of: accuracy counts from its bound on, 1 at the dense network's."""
        bound = NETWORKS[self.network]["constraints"]["accuracy_drop"]
        gains = {name: gain_of(name, metrics[name], self.dense) for name in self.objectives}
        return list((gains | {"accuracy": 1 - metrics["accuracy_drop"] / bound}).values())

    def ours(self, methods: list[str], seed: int, total: int) -> Iterator[Spent]:
        """The decisions of a sweep with one worker."""
        space, spent = self.space(methods, seed), 0
        with tempfile.TemporaryDirectory() as storage:
            store = SweepStore(Path(storage), "sweep")
            store.create()
            store.save_space(space)
            session = SweepSession(space, store, SweepStudy(store, space), self.dense, "", [])
            while spent < total and (spec := session.next_trial()):
                result = self.trained(spec.method, spec.hyperparameters)
                reports = [Report("measure", 1, 1, result["measured"])] if result["measured"] else []
                reports += [Report("retrain", each["epoch"], self.epochs, each) for each in result["epochs"]]
                for report in reports:
                    spent += report.stage == "retrain"
                    if session.stops(spec.number, report):
                        result = {"state": "pruned"}
                        break
                else:
                    store.trial(spec.number).mkdir(parents=True)
                    write_result(store.trial(spec.number), result)
                session.trial_ended(spec.number, worker_died=False)
                yield Spent(spent, spec.method, result["metrics"] if result["state"] == "complete" else None)

    def plain(self, sampler: type[BaseSampler], methods: list[str], seed: int, total: int) -> Iterator[Spent]:
        """What a ``Tuner`` with Ray's own searcher does, one trial at a time."""
        space, spent = self.space(methods, seed), 0
        searcher = plain_searcher(space, sampler)
        for number in itertools.count():
            method, result = self.run_point(space, searcher.suggest(str(number)))
            searcher.on_trial_complete(str(number), result["metrics"] or None, error=not result["metrics"])
            spent += len(result["epochs"])
            if spent > total:
                return
            yield Spent(spent, method, result["metrics"] or None)

    def run_point(self, space: Space, point: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        method = point["method"]
        return method, self.trained(method, space.draw(method, lambda name, _: point[f"{method}.{name}"]))


def plain_searcher(space: Space, sampler: type[BaseSampler]) -> OptunaSearch:
    metrics, modes = list(space.objectives), list(space.objectives.values())
    return OptunaSearch(flat_space(space), metric=metrics, mode=modes, sampler=sampler(seed=space.search.seed))


def flat_space(space: Space) -> dict[str, Any]:
    """Method and every method's hyperparameters side by side, as Tune spells them."""

    def domain(distribution: Distribution) -> Any:
        if isinstance(distribution, Choice):
            return tune.choice(list(distribution.values))
        low, high = distribution.low, distribution.high
        if isinstance(distribution, IntUniform):
            return (tune.lograndint if distribution.log else tune.randint)(low, high + 1)
        return (tune.loguniform if distribution.log else tune.uniform)(low, high)

    own = {f"{m}.{name}": domain(choice) for m in space.methods for name, choice in space.open_choices(m).items()}
    return {"method": tune.choice(list(space.methods)), **own}


def through_ray(bench: Bench, trials: int, seed: int = 0) -> None:
    """The same points by a real ``Tuner`` as by calling its searcher."""
    space, calls = bench.space(bench.methods, seed), []
    searcher = plain_searcher(space, TPESampler)
    for number in range(trials):
        calls.append(searcher.suggest(str(number)))
        _, result = bench.run_point(space, calls[-1])
        searcher.on_trial_complete(str(number), result["metrics"] or None, error=not result["metrics"])

    network, folder = bench.network, bench.folder

    def objective(config: dict[str, Any]) -> dict[str, float]:
        from tests.benchmarks.search_trained import Bench  # by its name: workers know no __main__

        again = Bench(network, folder)
        metrics = again.run_point(again.space(again.methods, seed), config)[1]["metrics"]
        if not metrics:
            raise RuntimeError("the trial failed")
        return metrics

    search = ConcurrencyLimiter(plain_searcher(space, TPESampler), max_concurrent=1)
    tuner = tune.Tuner(objective, tune_config=tune.TuneConfig(search_alg=search, num_samples=trials))
    with connected(None):
        tuned = [result.config for result in tuner.fit()]
    print(f"{sum(a == b for a, b in zip(calls, tuned, strict=True))} of {trials} points are the same through Ray")


class Course:
    """Hypervolume over the epochs spent."""

    def __init__(self, bench: Bench, trials: Iterator[Spent], total: int) -> None:
        self.total, points, self.steps, self.spent = total, [], [], {}
        before = 0
        for trial in trials:
            self.spent[trial.method] = self.spent.get(trial.method, 0) + trial.epochs - before
            before = trial.epochs
            if trial.metrics is not None and trial.epochs <= total:
                points.append(bench.gains(trial.metrics))
                self.steps.append((trial.epochs, hypervolume(points, [0.0] * len(bench.objectives))))

    def at(self, epochs: float) -> float:
        return max((volume for spent, volume in self.steps if spent <= epochs), default=0.0)

    def reached(self, volume: float) -> float:
        """The share of all epochs that was spent until then."""
        return next((spent for spent, reached in self.steps if reached >= volume), math.inf) / self.total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", choices=NETWORKS, default="digits")
    parser.add_argument("--trials", type=int, default=25, help="that each search could train to their end")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-rung", type=int, default=2, help="epochs before trials of ours may stop, 0 for never")
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, help="accuracy, and others to maximise")
    parser.add_argument("--through-ray", action="store_true")
    options = parser.parse_args()
    folder = (options.folder / options.network).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rungs = {"first": options.first_rung} if options.first_rung else None
    bench = Bench(options.network, folder, rungs=rungs, objectives=tuple(options.objectives))
    if options.through_ray:
        through_ray(bench, options.trials)
        return
    print(f"dense: {bench.dense.accuracy:.2f} % on validation, {bench.dense.params} parameters")
    total = options.trials * bench.epochs
    searches = {
        "plain": lambda seed: bench.plain(TPESampler, bench.methods, seed, total),
        "random": lambda seed: bench.plain(RandomSampler, bench.methods, seed, total),
        "ours": lambda seed: bench.ours(bench.methods, seed, total),
    }
    searches |= {f"only {name}": lambda seed, name=name: bench.ours([name], seed, total) for name in bench.methods}
    shares = (0.25, 0.5, 0.75, 1.0)
    print(f"{total} epochs each; medians of {options.seeds} seeds of the hypervolume after a part of the epochs")
    print(f"{'search':16}" + "".join(f"{share:9.2f}" for share in shares) + f"{'epochs to the end of plain':>30}")
    ends = []
    for name, search in searches.items():
        courses = [Course(bench, search(seed), total) for seed in range(options.seeds)]
        ends = ends or [course.at(total) for course in courses]
        volumes = [statistics.median(course.at(share * total) for course in courses) for share in shares]
        reached = [course.reached(end) for course, end in zip(courses, ends, strict=True)]
        parts = [
            "never" if math.isinf(share) else f"{share:.2f}x"
            for share in (statistics.median(reached), *sorted(reached))
        ]
        text = f"{parts[0]} ({', '.join(parts[1:])})"
        print(f"{name:16}" + "".join(f"{volume:9.4f}" for volume in volumes) + f"   {text}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
