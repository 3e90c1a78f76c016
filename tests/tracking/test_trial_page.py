from __future__ import annotations

import itertools
import math
import re
from html.parser import HTMLParser

import made_up_sweep as made_up
from hypothesis import given
from hypothesis import strategies as st

from lrsearch.files import write_json
from lrsearch.record import TrialRecord
from lrsearch.tracking.curve import curve
from lrsearch.tracking.trial_page import draw_trial

LAYERS = [
    {"layer": "<b>", "shape": [8, 4, 3, 3], "kind": "svd", "ranks": [3, 3], "reason": None, "dense_params": 288,
     "params": 72, "error": 0.25},
    {"layer": "fc", "shape": [5, 8], "kind": "dense", "ranks": [], "reason": "too small & last", "dense_params": 45,
     "params": 45, "error": 0.0},
]  # fmt: skip


class Cells(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_every_layer_is_told_with_its_ranks_and_its_error(tmp_path):
    write_json(tmp_path / "layers.json", LAYERS)
    (path,) = draw_trial(tmp_path, made_up.finished_trial(0), made_up.history(0))
    text = path.read_text()
    _, svd, dense = Cells(text).rows
    assert svd == ["<b>", "8×4×3×3", "svd", "2×3", "72", "25 %", "0.250", ""]
    assert dense == ["fc", "5×8", "dense", "", "45", "100 %", "", "too small & last"]
    assert text.count("<svg") == 3, "loss, accuracy and learning rate"
    assert "src=" not in text and "href=" not in text and "<script" not in text


def test_a_trial_that_left_nothing_has_no_page(tmp_path):
    assert draw_trial(tmp_path, TrialRecord(1, "failed", "alds", reason="out of memory"), []) == []
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_drawn_costs_itself_alone(tmp_path, caplog):
    write_json(tmp_path / "layers.json", [{"layer": "half an entry"}])
    assert draw_trial(tmp_path, made_up.finished_trial(0), []) == []
    assert "cannot be shown" in caplog.text


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=12))
def test_a_curve_shows_every_finite_point_in_order_of_height(values):
    text = curve(list(enumerate(values)))
    known = [value for value in values if math.isfinite(value)]
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert len(places) == len(known)
    assert all(0 <= x <= 320 and 0 <= y <= 170 for x, y in places)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    for (low, (_, below)), (high, (_, above)) in itertools.combinations(zip(known, places, strict=True), 2):
        assert (above <= below) if high > low else (above >= below)
