from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import made_up_sweep as made_up
import pytest

from lrsearch.record import TrialRecord
from lrsearch.tracking.figures import write_front
from lrsearch.tracking.panels import hyperparameter_text, view_front


@pytest.fixture(scope="module")
def records():
    records = [made_up.finished_trial(number) for number in range(40)]
    made_up.front_of(records)
    return records


@pytest.fixture
def info(tmp_path):
    return made_up.sweep_info(tmp_path, 40)


class Links(HTMLParser):
    """Everything a page would fetch, and the text of its table."""

    def __init__(self):
        super().__init__()
        self.fetched, self.cells, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        if self.tags and self.tags[-1] in ("td", "i"):
            self.cells.append(data)


def page_of(folder):
    links = Links()
    links.feed((folder / "pareto.html").read_text(encoding="utf-8"))
    return links


def test_page_opens_without_anything_else(tmp_path, info, records):
    write_front(tmp_path, info, made_up.DENSE, records)
    page = page_of(tmp_path)
    assert page.fetched == []
    text = (tmp_path / "pareto.html").read_text(encoding="utf-8")
    assert len(text) > 3_000_000, "plotly itself is inside"
    assert not re.search(r"@import|url\(http", text[:20_000])
    for record in records:
        hovered = re.search(rf"trial {record.number} (·|\\u00b7)", text) is not None
        assert hovered == (record.state == "complete")


def test_table_lists_the_front_and_only_it(tmp_path, info, records):
    write_front(tmp_path, info, made_up.DENSE, records)
    with (tmp_path / "front.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    front = sorted((r for r in records if r.pareto), key=lambda r: -r.accuracy)
    assert [int(row["number"]) for row in rows] == [r.number for r in front]
    assert list(rows[0])[:4] == ["number", "state", "method", "params"]
    assert [float(row["speedup"]) for row in rows] == [r.speedup for r in front]
    assert [json.loads(row["hyperparameters"]) for row in rows] == [r.hyperparameters for r in front]


def test_names_are_text_never_markup(tmp_path, info, records):
    hostile = '</script><img src="x" onerror="alert(1)">'
    dangerous = [replace(r, method=hostile, hyperparameters={hostile: hostile}) for r in records]
    write_front(tmp_path, replace(info, name=hostile), made_up.DENSE, dangerous)
    page = page_of(tmp_path)
    assert "img" not in page.tags
    assert page.fetched == []


def test_picture_is_a_png_and_touches_no_global_state(tmp_path, info, records):
    from matplotlib import _pylab_helpers

    write_front(tmp_path, info, made_up.DENSE, records)
    content = (tmp_path / "pareto.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 20_000
    assert not _pylab_helpers.Gcf.figs


@pytest.mark.parametrize(
    "objectives",
    [
        {"accuracy": "max"},
        {"accuracy": "max", "params": "min", "seconds": "min", "cr_f": "max"},
        {"flops": "min", "speedup": "max", "throughput": "max"},
        {"accuracy_drop": "min", "cr_p": "max"},
    ],
    ids=lambda objectives: "-".join(objectives),
)
def test_any_objectives_can_be_drawn(tmp_path, info, records, objectives):
    write_front(tmp_path, replace(info, objectives=objectives), made_up.DENSE, records)
    assert page_of(tmp_path).tags.count("section") >= 1


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_trials_can_be_drawn(tmp_path, info, count):
    records = [TrialRecord(0, "failed", "alds")][:count]
    write_front(tmp_path, info, made_up.DENSE, records)
    assert (tmp_path / "pareto.png").exists()


def test_each_panel_joins_the_front_of_its_own_two_axes(info, records):
    view = view_front(info, made_up.DENSE, records)
    assert [panel.x.metric for panel in view.panels] == ["flops", "throughput"]
    for panel, better in zip(view.panels, (lambda a, b: a < b, lambda a, b: a > b), strict=True):
        complete = [r.number for r in records if r.state == "complete"]
        assert sorted(p.record.number for p in panel.points) == complete
        for point in panel.points:
            dominated = any(
                (better(o.x, point.x) and o.y >= point.y) or (o.x == point.x and o.y > point.y)
                for o in panel.points
                if o.record.pareto
            )
            assert point.joined == (point.record.pareto and not dominated)


def test_no_front_member_and_no_reference_is_cut_off(info, records):
    bad = TrialRecord(99, "complete", "alds", flops=10**6, accuracy=10.0, speedup=1.0)
    for panel in view_front(info, made_up.DENSE, [*records, bad]).panels:
        low, high = panel.y_range()
        assert all(low < p.y < high for p in panel.points if p.record.pareto)
        assert low < made_up.DENSE.accuracy < high
        assert low > 50, "one bad trial does not flatten the front"


def test_hyperparameters_on_one_line():
    values = {"budget": {"params": 0.123456, "flops": None}, "k": 2, "recalibrate": True}
    assert hyperparameter_text(values) == "budget.params 0.1235, k 2, recalibrate true"
