"""What a person sees while a sweep runs, in a terminal of 80 columns and in a file."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from lrsearch.methods.base import Progress
from lrsearch.observer import SweepInfo
from lrsearch.record import DenseRecord, Report, TrialRecord
from lrsearch.screen import SweepScreen, duration, front_rows, front_table, short, size_of

DENSE = DenseRecord(params=308_074, flops=6_100_000, accuracy=98.77, test_accuracy=99.44, throughput=10_779.0)


def record(number, **changes):
    known = {
        "state": "complete",
        "accuracy": 98.35,
        "cr_p": 55.2,
        "speedup": 1.06,
        "hyperparameters": {"budget": {"params": 0.45678}},
    }
    return TrialRecord(number=number, method="alds", **known | changes)


def watch(screen):
    """Show the beginning of a sweep of three trials, two of which run."""
    screen.sweep_started(SweepInfo("digits", Path("runs/digits"), 3, 0, 2, {}, {}))
    screen.dense_reported(Report("retrain", 3, 12, {"accuracy": 91.0}))
    screen.dense_finished(DENSE)
    for number in (0, 1):
        screen.trial_started(number, "alds", {"budget": {"params": 0.45678}})
    screen.trial_reported(0, Report("measure", 1, 1, {"cr_p": 55.2, "speedup": 1.06}))
    screen.trial_reported(0, Report("retrain", 2, 4, {"accuracy": 97.5}))


def rendered(screen):
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(screen._render())
    return console.file.getvalue().splitlines()


def test_running_trials_show_stage_accuracy_and_what_was_measured():
    screen = SweepScreen(Console(file=io.StringIO()))
    watch(screen)

    head, _, first, second = rendered(screen)

    assert "0/3" in head and "estimating" in head
    assert first.split() == ["0", "alds", "params=0.457", "retrain", "2/4", "97.50", "55.2", "1.06x"]
    assert second.split()[:4] == ["1", "alds", "params=0.457", "starting"]


def test_estimate_follows_the_pace_of_this_run(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lrsearch.screen.time.monotonic", lambda: now[0])
    screen = SweepScreen(Console(file=io.StringIO()))
    watch(screen)
    now[0] = 30.0
    screen.trial_finished(record(0), [], Path())

    assert "about 60 s left" in rendered(screen)[0]


def test_repetitions_of_the_front_are_counted_with_an_estimate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lrsearch.screen.time.monotonic", lambda: now[0])
    screen = SweepScreen(Console(file=io.StringIO()))
    screen.sweep_started(SweepInfo("digits", Path("runs/digits"), 3, 3, 2, {}, {}))
    screen.dense_finished(DENSE)
    now[0] = 30.0
    screen.repetition_ended(Progress(3, 9))

    (line,) = rendered(screen)
    assert "3/9" in line and "about 60 s left" in line


def test_file_gets_one_line_per_trial_and_no_control_characters():
    console = Console(file=io.StringIO())
    screen = SweepScreen(console)
    watch(screen)
    screen.trial_finished(record(0), [], Path())
    screen.trial_finished(record(1, state="failed", reason="loss is nan in epoch 2"), [], Path())
    screen.sweep_stopped("finished")

    text = console.file.getvalue()
    assert "\x1b" not in text
    assert "[1/3] trial 0 alds params=0.457: accuracy 98.35 %, CR-P 55.2 %, 1.06x" in text
    assert "[2/3] trial 1 alds params=0.457: failed: loss is nan in epoch 2" in text


def test_trials_of_an_earlier_run_count_but_are_not_told_again():
    console = Console(file=io.StringIO())
    screen = SweepScreen(console)
    screen.sweep_started(SweepInfo("digits", Path("runs/digits"), 3, 1, 2, {}, {}))
    screen.trial_finished(record(0), [], Path())

    assert "1 of them done before" in console.file.getvalue()
    assert "trial 0" not in console.file.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (100, "2 min"), (12_000, "3 h 20 min")])
def test_durations_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_hyperparameters_on_one_line_budget_first():
    assert short({"alpha": None, "rule": "max", "budget": {"flops": 0.25}}) == "flops=0.25 rule=max"


def test_size_is_the_budget_or_else_the_numbers():
    assert size_of({"rule": "max", "n_seeds": 15, "budget": {"flops": 0.25}}) == "flops=0.25"
    assert size_of({"alpha": 2.5, "classifier": False}) == "alpha=2.5"


def test_networks_with_fewer_flops_that_are_not_faster_are_marked():
    faster = record(0, extra={"slower_than_dense": 0.0})
    slower = record(1, speedup=0.9, extra={"slower_than_dense": 1.0})
    console = Console(file=io.StringIO(), width=80, force_terminal=False)

    console.print(front_table(front_rows(DENSE, [faster, slower])))
    *_, first, second, caption = console.file.getvalue().splitlines()
    assert first.split()[-1] == "1.06x" and second.split()[-1] == "0.90x!"
    assert caption.startswith("x!  fewer FLOPs")

    console.print(front_table(front_rows(DENSE, [faster])))
    assert console.file.getvalue().splitlines()[-1].split()[-1] == "1.06x"
