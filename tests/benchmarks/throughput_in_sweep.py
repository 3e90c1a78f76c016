"""How well measurements of one network agree in a busy sweep: ten equal trials, two at a time.

Run: python tests/benchmarks/throughput_in_sweep.py
"""

import statistics
import tempfile

from lrsearch import search

SPACE = {
    "model": {"name": "digits_resnet", "width": 32},
    "data": {"name": "digits"},
    "train": {"epochs": 2},
    "retrain": {"epochs": 4},
    "methods": {"tucker": {"alpha": 3.0}},
    "search": {"trials": 10, "sampler": "random"},
}


def main():
    with tempfile.TemporaryDirectory() as folder:
        trials = search(SPACE, "agreement", storage=folder).trials
    speedups = [trial.speedup for trial in trials]
    middle = statistics.median(speedups)
    furthest = max(abs(speedup / middle - 1) for speedup in speedups)
    print("speed-ups over dense:", " ".join(f"{speedup:.3f}" for speedup in speedups))
    print(f"median {middle:.3f}, furthest from it {100 * furthest:.1f} %")


if __name__ == "__main__":
    main()
