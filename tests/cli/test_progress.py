"""Long work shows how far it has come, in a terminal only."""

import io

from rich.console import Console

from lrsearch.cli import progress
from lrsearch.methods.base import Progress


def shown(monkeypatch, terminal):
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    monkeypatch.setattr(progress, "console", lambda stderr: screen)
    with progress.progress_bar("rene") as watch:
        for done in range(3):
            watch(Progress(done, 4))
    return screen.file.getvalue()


def test_bar_tells_steps_and_time_left_in_a_terminal(monkeypatch):
    text = shown(monkeypatch, terminal=True)

    assert "rene" in text and "2/4" in text and "left" in text


def test_nothing_is_shown_where_output_is_piped(monkeypatch):
    assert shown(monkeypatch, terminal=False).strip() == ""
