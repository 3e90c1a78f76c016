from pathlib import Path
from typing import Any

import made_up_sweep as made_up
import pytest

from lrsearch.files import write_json
from lrsearch.tracking.mirror import RunMirror
from lrsearch.tracking.rank_picture import write_ranks
from lrsearch.tracking.sweep_mirror import SweepMirror

HISTORY = {"ranks": {"0": [20, 12, 9], "2": [30, 14, 8]}, "tau": [0.2, 0.3], "loss": [1.0, 0.5, 0.4]}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[list[float], list[float]]]:
    """The lines of the picture: label -> (x, y)."""
    from matplotlib.axes import Axes

    lines: dict[str, tuple[list[float], list[float]]] = {}
    plot = Axes.plot

    def watched(self: Axes, x: Any, y: Any, **options: Any) -> Any:
        lines[options["label"]] = (list(x), list(y))
        return plot(self, x, y, **options)

    monkeypatch.setattr(Axes, "plot", watched)
    return lines


def test_every_layer_and_the_null_curve_are_drawn(tmp_path: Path, drawn: dict[str, Any]) -> None:
    write_ranks(tmp_path / "ranks.png", HISTORY)
    assert (tmp_path / "ranks.png").read_bytes().startswith(b"\x89PNG")
    null = drawn.pop("1 / tau² (nothing learnt)")
    assert drawn == {name: ([1, 2, 3], course) for name, course in HISTORY["ranks"].items()}
    assert null == ([1, 2], pytest.approx([25, 1 / 0.09]))


@pytest.mark.parametrize(("content", "there"), [(HISTORY, True), ({"metrics": {}}, False)], ids=["ranks", "none"])
def test_a_trial_that_has_ranks_shows_them(
    content: dict[str, Any], there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[str] = []
    monkeypatch.setattr(RunMirror, "want_file", lambda _, path: wanted.append(path.name))
    write_json(tmp_path / "history.json", content)
    SweepMirror(made_up.sweep_info(tmp_path, 1), None).trial_finished(made_up.finished_trial(0), [], tmp_path)
    assert wanted == ["history.json", *(["ranks.png"] if there else [])]


def test_a_damaged_history_costs_the_picture_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted: list[str] = []
    monkeypatch.setattr(RunMirror, "want_file", lambda _, path: wanted.append(path.name))
    (tmp_path / "history.json").write_text("{")
    SweepMirror(made_up.sweep_info(tmp_path, 1), None).trial_finished(made_up.finished_trial(0), [], tmp_path)
    assert wanted == ["history.json"]
    assert "cannot be drawn" in caplog.text
