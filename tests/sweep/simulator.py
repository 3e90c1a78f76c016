"""A sweep without training: an analytic accuracy-size curve stands in for the worker."""

from lrsearch.record import DenseRecord
from lrsearch.space import parse_space
from lrsearch.sweep.session import SweepSession
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import SweepStudy
from lrsearch.trial import write_result

DENSE = DenseRecord(params=1000, flops=10_000, accuracy=99.0, test_accuracy=98.5, throughput=500.0)


def make_space(trials=8, sampler="tpe", **changes):
    return parse_space(
        {
            "model": {"name": "digits_mlp"},
            "data": {"name": "digits"},
            "objectives": {"accuracy": "max", "flops": "min"},
            "constraints": {"accuracy_drop": 30.0},
            "methods": {
                "alds": {"budget": {"params": {"uniform": [0.1, 0.8]}}},
                "tucker": {"alpha": {"loguniform": [1.5, 10]}},
            },
            "search": {"trials": trials, "sampler": sampler},
        }
        | changes
    )


def open_session(space, folder, observers=(), name="sim"):
    store = SweepStore(folder, name)
    store.create()
    store.save_space(space)
    return SweepSession(space, store, SweepStudy(store, space), DENSE, str(store.cache / "dense"), observers)


def simulate(spec, folder):
    """Leave in a trial's folder what a worker would leave there."""
    values = spec.hyperparameters
    kept = values["budget"]["params"] if spec.method == "alds" else 1 / values["alpha"]
    accuracy = 99.0 * (1 - 0.3 * (1 - kept) ** 4)
    metrics = {
        "accuracy": accuracy,
        "accuracy_drop": 99.0 - accuracy,
        "params": round(1000 * kept),
        "flops": round(10_000 * kept),
        "cr_p": 100 * (1 - kept),
        "cr_f": 100 * (1 - kept),
        "throughput": 500 / kept,
        "speedup": 1 / kept,
        "seconds": 1.0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_result(folder, {"state": "complete", "reason": None, "metrics": metrics, "epochs": []})
