"""Long work shows how far it has come, in a terminal only."""

import io

import pytest
from rich.console import Console

from lrsearch.cli import progress
from lrsearch.methods.base import Progress
from tests.test_cli import lrsearch

NETWORK = ("--model", "{name: digits_mlp, width: 16}", "--budget", "params=0.5")


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def screen(request, monkeypatch):
    """Standard error, every change of which is drawn."""
    screen = Console(file=io.StringIO(), force_terminal=request.param, width=80)
    monkeypatch.setattr(progress, "console", lambda stderr: screen)
    monkeypatch.setattr(progress, "_PACE", 0.0)
    return screen


def assert_shows(screen, *texts):
    shown = screen.file.getvalue()
    if screen.is_terminal:
        assert all(text in shown for text in texts), shown
    else:
        assert shown.strip() == ""


def test_bar_tells_steps_and_time_left_of_each_stage(screen):
    with progress.progress_bar() as stage:
        watch = stage("rene")
        for done in range(3):
            watch(Progress(done, 4))
        stage("test accuracy")(Progress(0, 9))

    assert_shows(screen, "loading", "rene", "2/4", "left", "test accuracy", "0/9")


def test_bar_is_drawn_seldom_and_by_no_thread(screen, monkeypatch):
    monkeypatch.setattr(progress, "_PACE", 1e9)
    with progress.progress_bar() as stage:
        watch = stage("rene")
        watch(Progress(0, 4))
        drawn = screen.file.tell()
        watch(Progress(1, 4))
        assert screen.file.tell() == drawn


def test_verbs_on_networks_show_it(screen, tmp_path):
    for *words, texts in (
        ("compress", *NETWORK, "--data", "digits", "--method", "svd", "--out", "o", ("svd", "test accuracy")),
        ("apply", "o", "--data", "digits", "--out", "again", ("recipe", "test accuracy")),
        ("measure", "o", ("throughput", "/100")),
        ("evaluate", "o", "--data", "digits", ("test split", "0/")),
        ("export", "o", "--out", "plain", ("writing plain",)),
    ):
        screen.file.seek(0)
        screen.file.truncate()
        done = lrsearch(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert_shows(screen, *texts)
