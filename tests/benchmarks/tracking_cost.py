"""What MLflow costs a sweep: ``python tests/benchmarks/tracking_cost.py [TRIALS]`` prints seconds per trial.

The trials are made up and take no time, so that what is seen is the worst case; the tracker's pace of one round per
second and the drawing of the front are those of a real sweep.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tracking"))

import made_up_sweep as made_up

from lrsearch.tracking import Tracker


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.monotonic(), time.process_time()
    action()
    return time.monotonic() - wall, time.process_time() - processor


def main(trials: int) -> None:
    """Run the sweep, then resume it when it is finished."""
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        info = made_up.sweep_info(storage, trials)
        print(f"new store     {timed(lambda: Tracker(None, storage))[0]:6.2f} s, MLflow's import included")
        print(f"opening again {timed(lambda: Tracker(None, storage))[0]:6.2f} s")
        for name, play in (("first run", made_up.play), ("resumed", made_up.replay)):
            tracker = Tracker(None, storage)
            made_up.begin(tracker, info)
            told, _ = timed(lambda play=play, tracker=tracker: play(tracker, info, range(trials)))
            written, processor = timed(lambda tracker=tracker: tracker.sweep_stopped("interrupted"))
            print(
                f"{name:13} telling {1000 * told / trials:5.2f} ms per trial (the front's computing included), "
                f"writing {1000 * written / trials:5.1f} ms per trial, of them {1000 * processor / trials:5.1f} ms busy"
            )
        print(f"opening again {timed(lambda: Tracker(None, storage))[0]:6.2f} s with {trials} trials in it")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
