"""A made-up sweep with the figures of a plausible one: no Ray, no training, the same every time.

Run as a program it is a driver: ``python made_up_sweep.py STORAGE TRIALS PAUSE`` plays the sweep into a
tracker, prints each finished trial's number, and rests PAUSE seconds between epochs.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from lrsearch.front import gain, hypervolume, mark_front
from lrsearch.observer import SweepInfo
from lrsearch.record import DenseRecord, Report, TrialRecord
from lrsearch.tracking import Tracker

DENSE = DenseRecord(
    params=272_474,
    flops=81_100_000,
    accuracy=98.9,
    test_accuracy=98.6,
    throughput=2650.0,
    seconds=21.0,
    device="AMD EPYC",
)
EPOCHS = 4
OBJECTIVES = {"accuracy": "max", "flops": "min", "throughput": "max"}


def sweep_info(storage: Path, trials: int, name: str = "digits") -> SweepInfo:
    space = {
        "model": {"name": "digits_resnet", "width": 32},
        "data": {"name": "digits"},
        "retrain": {"epochs": EPOCHS, "schedule_epochs": None},
        "objectives": OBJECTIVES,
        "constraints": {"accuracy_drop": 5.0},
        "methods": {
            "alds": {"budget": {"params": {"uniform": [0.1, 0.8]}}},
            "tucker": {"alpha": {"loguniform": [1.5, 10]}},
        },
        "search": {"trials": trials, "sampler": "tpe", "seed": 0},
    }
    return SweepInfo(name, storage / name, trials, 0, 2, OBJECTIVES, space)


def hyperparameters(number: int) -> tuple[str, dict]:
    rng = random.Random(number)
    if number % 3 == 2:
        return "tucker", {"alpha": round(rng.uniform(1.5, 10), 3), "budget": None}
    return "alds", {"budget": {"params": round(rng.uniform(0.1, 0.8), 4)}, "recalibrate": True}


def history(number: int) -> list[dict[str, float]]:
    return [
        {"epoch": e, "loss": math.exp(-e) + number / 100, "accuracy": 90 + e, "lr": 0.1 / e, "seconds": 0.5}
        for e in range(1, EPOCHS + 1)
    ]


def finished_trial(number: int) -> TrialRecord:
    """Every eleventh trial failed, every seventh was pruned."""
    rng = random.Random(1000 + number)
    method, values = hyperparameters(number)
    if number % 11 == 10:
        return TrialRecord(number, "failed", method, hyperparameters=values, reason="loss is not finite in epoch 2")
    kept = values["budget"]["params"] if method == "alds" else 0.9 / values["alpha"]
    kept_flops = min(0.97, kept * rng.uniform(0.85, 1.3) + 0.05)
    speedup = min(2.6, 0.8 + 0.35 / kept_flops) * rng.uniform(0.9, 1.1)
    drop = 0.25 / kept - 0.6 + rng.uniform(0, 1.0) + (0.5 if method == "tucker" else 0.0)
    return TrialRecord(
        number=number,
        state="pruned" if number % 7 == 6 else "complete",
        method=method,
        params=int(kept * DENSE.params),
        flops=int(kept_flops * DENSE.flops),
        cr_p=100 * (1 - kept),
        cr_f=100 * (1 - kept_flops),
        accuracy=DENSE.accuracy - drop,
        accuracy_drop=drop,
        throughput=speedup * DENSE.throughput,
        speedup=speedup,
        seconds=rng.uniform(4, 9),
        hyperparameters=values,
        seed=number,
        reason="stopped at epoch 2 by its rank" if number % 7 == 6 else None,
    )


def front_of(records: list[TrialRecord]) -> float:
    mark_front(records, OBJECTIVES, {"accuracy_drop": 5.0})
    return hypervolume([gain(r, DENSE, OBJECTIVES) for r in records if r.pareto], [0.0] * 3)


def begin(tracker: Tracker, info: SweepInfo) -> None:
    tracker.sweep_started(info)
    tracker.dense_reported(Report("retrain", 1, 1, {"loss": 0.3, "accuracy": 97.0}))
    tracker.dense_finished(DENSE)


def play(tracker: Tracker, info: SweepInfo, numbers: Iterable[int], pause: float = 0.0) -> list[TrialRecord]:
    """Tell a tracker of trials as they run, one after the other."""
    records: list[TrialRecord] = []
    for number in numbers:
        tracker.trial_started(number, *hyperparameters(number))
        tracker.trial_reported(number, Report("compress", 1, 1))
        tracker.trial_reported(number, Report("measure", 1, 1, {"speedup": 1.5}))
        for epoch in history(number):
            metrics = {key: value for key, value in epoch.items() if key != "epoch"}
            tracker.trial_reported(number, Report("retrain", int(epoch["epoch"]), EPOCHS, metrics))
            time.sleep(pause)
        records.append(finished_trial(number))
        finish(tracker, info, records)
    return records


def finish(tracker: Tracker, info: SweepInfo, records: list[TrialRecord]) -> None:
    """Tell of the last of the records as finished, and of the front with it."""
    record = records[-1]
    folder = info.folder / "trials" / str(record.number)
    if record.state == "complete":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text('{"format": 1}\n')
    volume = front_of(records)
    tracker.trial_finished(record, history(record.number), folder)
    tracker.front_changed([each for each in records if each.pareto], volume)


def replay(tracker: Tracker, info: SweepInfo, numbers: Iterable[int]) -> list[TrialRecord]:
    """Tell of finished trials again, as a resumed sweep does."""
    records: list[TrialRecord] = []
    for number in numbers:
        records.append(finished_trial(number))
        finish(tracker, info, records)
    return records


if __name__ == "__main__":
    storage, trials, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    driver_info = sweep_info(storage, trials)
    driver = Tracker(None, storage)
    begin(driver, driver_info)
    print("begun", flush=True)
    for trial in range(trials):
        play(driver, driver_info, [trial], pause)
        print(trial, flush=True)
    driver.sweep_stopped("finished")
