"""A sweep without training: analytic curves of accuracy over size and epochs stand in for the worker."""

import math
import shutil

from lrsearch.files import read_json, write_json
from lrsearch.outcome import RESULT, write_result
from lrsearch.pipeline import CHECKPOINT
from lrsearch.record import DenseRecord, Report
from lrsearch.space import parse_space
from lrsearch.sweep.session import SweepSession
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import SweepStudy
from lrsearch.training.checkpoint import Checkpoint, Epoch, read_history
from lrsearch.trial import MEASURED

DENSE = DenseRecord(params=1000, flops=10_000, accuracy=99.0, test_accuracy=98.5, throughput=500.0)


def make_space(trials=8, sampler="tpe", epochs=0, rungs=None, search=None, **changes):
    return parse_space(
        {
            "model": {"name": "digits_mlp"},
            "data": {"name": "digits"},
            "retrain": {"epochs": epochs},
            "objectives": {"accuracy": "max", "flops": "min"},
            "constraints": {"accuracy_drop": 30.0},
            "methods": {
                "alds": {"budget": {"params": {"uniform": [0.1, 0.8]}}},
                "tucker": {"alpha": {"loguniform": [1.5, 10]}},
            },
            "search": {"trials": trials, "sampler": sampler, "rungs": rungs} | (search or {}),
        }
        | changes
    )


def grid_space(epochs=9, factor=3, **changes):
    """Points known beforehand, so that a sweep that was killed tries the same ones; tucker is dominated by alds."""
    sizes = [0.2, 0.7, 0.35, 0.15, 0.5, 0.8, 0.3, 0.6, 0.4, 0.1]
    methods = {
        "alds": {"budget": {"params": {"choice": sizes}}},
        "tucker": {"alpha": {"choice": [round(1 / size, 3) for size in sizes]}, "beta": {"choice": [1.0, 2.0]}},
    }
    rungs = {"first": 1, "factor": factor}
    return make_space(trials=99, sampler="grid", epochs=epochs, rungs=rungs, methods=methods, **changes)


def open_session(space, folder, observers=(), name="sim"):
    store = SweepStore(folder, name)
    store.create()
    store.save_space(space)
    return SweepSession(space, store, SweepStudy(store, space), DENSE, str(store.cache / "dense"), observers)


def kept(spec):
    values = spec.hyperparameters
    return values["budget"]["params"] if "budget" in values else 1 / values["alpha"]


def accuracy(spec, epoch):
    """After so many epochs: half of what is lacking is learnt by the third, and tucker can never learn all."""
    size, lag = kept(spec), 8 + spec.hyperparameters.get("beta", 0) * 2
    best = 99.0 * (1 - 0.3 * (1 - size) ** 4) - (4 if spec.method == "tucker" else 0)
    return best - (lag * math.exp(-epoch / 4) if spec.retrain["epochs"] else 0.0)


def measured(spec):
    """What is known before retraining."""
    return metrics_of(kept(spec), accuracy(spec, 0))


def metrics_of(size, reached):
    """All metrics of a network of a fraction ``size`` of the dense one that reached an accuracy."""
    return {
        "accuracy": reached,
        "accuracy_drop": 99.0 - reached,
        "params": round(1000 * size),
        "flops": round(10_000 * size),
        "cr_p": 100 * (1 - size),
        "cr_f": 100 * (1 - size),
        "throughput": 500 / size,
        "speedup": 1 / size,
        "seconds": 1.0,
    }


def simulate(spec, folder, accuracy=accuracy, measured=measured):
    """Leave in a trial's folder what a worker leaves there in the end."""
    epochs, metrics = spec.retrain["epochs"], measured(spec)
    metrics |= {"accuracy": accuracy(spec, epochs), "accuracy_drop": 99.0 - accuracy(spec, epochs)}
    folder.mkdir(parents=True, exist_ok=True)
    write_result(folder, {"state": "complete", "reason": None, "metrics": metrics, "epochs": []})


def work(session, spec, accuracy=accuracy, measured=measured):
    """Run a trial as worker and driver do together; whoever stops iterating has killed the driver there."""
    folder, total = session.store.trial(spec.number), spec.retrain["epochs"]
    if spec.continues and not folder.exists():
        shutil.copytree(spec.continues, folder, ignore=shutil.ignore_patterns(RESULT))
    if read_json(folder / MEASURED, "") is None:
        write_json(folder / MEASURED, measured(spec))
        yield "measured"
    stops = session.stops(spec.number, Report("measure", 1, 1, measured(spec)))
    history = read_history(folder / CHECKPOINT) if (folder / CHECKPOINT).exists() else []
    while len(history) < total and not stops:
        epoch = len(history) + 1
        history.append(Epoch(epoch, total, 1 / epoch, accuracy(spec, epoch), 0.1, 1.0))
        Checkpoint({}, {}, history, {}).save(folder / CHECKPOINT)
        yield "epoch saved"
        metrics = {"epoch": epoch, "loss": 1 / epoch, "accuracy": accuracy(spec, epoch), "lr": 0.1, "seconds": 1.0}
        stops = session.stops(spec.number, Report("retrain", epoch, total, metrics))
        yield "epoch reported"
    if not stops:
        simulate(spec, folder, accuracy, measured)
        yield "result written"
    session.trial_ended(spec.number, worker_died=False)


def run(session, trials=None):
    """Run trials one after another, as a single worker would; stop after so many of them."""
    done = 0
    while done != trials and (spec := session.next_trial()):
        for _ in work(session, spec):
            pass
        done += 1
