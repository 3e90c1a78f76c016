from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import made_up_sweep as made_up
import pytest

from lrsearch.files import write_json
from lrsearch.record import TrialRecord
from lrsearch.tracking.figures import write_front as write_files
from lrsearch.tracking.links import RunLinks
from lrsearch.tracking.panels import hyperparameter_text, view_front
from lrsearch.tracking.story import tell_story


@pytest.fixture(scope="module")
def records():
    records = [made_up.finished_trial(number) for number in range(40)]
    made_up.front_of(records)
    return records


@pytest.fixture
def info(tmp_path):
    return made_up.sweep_info(tmp_path, 40)


def write_front(folder, info, dense, records, **known):
    write_files(folder, info, dense, records, tell_story(info, dense, records, **known))


def content_of(folder):
    """What the page's script draws."""
    page = (folder / "pareto.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.S)[1])


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
    assert page_of(tmp_path).fetched == []
    text = (tmp_path / "pareto.html").read_text(encoding="utf-8")
    assert len(text) > 3_000_000, "plotly itself is inside"
    assert not re.search(r"@import|url\(http", text[:20_000])


def test_page_knows_every_complete_trial_and_what_is_asked_of_it(tmp_path, info, records):
    complete = {record.number: record for record in records if record.state == "complete"}
    run = {number: f"run{number}" for number in complete}
    write_front(tmp_path, info, made_up.DENSE, records, links=RunLinks("5", "parent", run, "https://mlflow.org"))
    content = content_of(tmp_path)
    assert {int(number) for number in content["trials"]} == complete.keys()
    for number, trial in content["trials"].items():
        record = complete[int(number)]
        assert (trial["method"], trial["pareto"], trial["seed"]) == (record.method, record.pareto, record.seed)
        assert trial["speedup"] == pytest.approx(record.speedup, rel=1e-6)
        assert trial["hyperparameters"] == hyperparameter_text(record.hyperparameters)
        assert trial["run"] == f"#/experiments/5/runs/run{number}?workflowType=machine_learning"
    assert content["server"] == "https://mlflow.org"
    assert len(content["hypervolumes"]) == len(records)
    assert content["hypervolumes"][-1] == pytest.approx(made_up.front_of(records), rel=1e-4)
    assert content["hypervolumes"] == sorted(content["hypervolumes"])
    assert content["coordinates"].keys() == {"alds", "tucker"}


def test_page_tells_what_other_seeds_gave(tmp_path, info, records):
    repeated = [replace(r, extra={"accuracy_mean": 70.0, "accuracy_std": 0.25}) if r.pareto else r for r in records]
    write_front(tmp_path, info, made_up.DENSE, repeated)
    content = content_of(tmp_path)
    for trial in content["trials"].values():
        assert (trial.get("mean"), trial.get("std")) == ((70.0, 0.25) if trial["pareto"] else (None, None))
    repeated = {(number, mean, std) for panel in content["panels"] for number, _, mean, std in panel["repeated"]}
    assert repeated == {(record.number, 70.0, 0.25) for record in records if record.pareto}
    assert all(panel["range"][0] < 69.75 for panel in content["panels"]), "no bar is cut off"
    assert "70.00 ± 0.25" in page_of(tmp_path).cells


def test_page_shows_the_layers_of_front_members_alone(tmp_path, info, records):
    front = [record for record in records if record.pareto]
    dominated = next(record for record in records if not record.pareto and record.state == "complete")
    for record, ranks in ((front[0], [3, 3]), (dominated, [77])):
        entry = {"layer": "conv<1>", "shape": [8, 4, 3, 3], "kind": "svd", "ranks": ranks, "reason": None}
        entry |= {"dense_params": 100, "params": 25, "error": 0.125}
        write_json(info.folder / "trials" / str(record.number) / "layers.json", [entry])
    write_front(tmp_path, info, made_up.DENSE, records)
    cells = page_of(tmp_path).cells
    assert "2×3" in cells and "77" not in cells
    content = content_of(tmp_path)["trials"]
    assert content[str(front[0].number)]["ranks"] == "ranks 3–3 in 1 of 1 layers"


def test_importances_are_those_that_the_sweep_left(tmp_path, info, records):
    shares = {"alds": {"accuracy": {"budget.params": 0.75, "k": 0.25}}}
    write_json(info.folder / "front" / "importance.json", shares)
    write_front(tmp_path, info, made_up.DENSE, records)
    assert content_of(tmp_path)["importances"] == shares


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
    panels = content_of(tmp_path)["panels"]
    said = {panel["x"] for panel in panels}
    assert {"Throughput, × dense"} <= said and len(panels) == len(said), "each axis once, speed always"


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_trials_can_be_drawn(tmp_path, info, count):
    records = [TrialRecord(0, "failed", "alds")][:count]
    write_front(tmp_path, info, made_up.DENSE, records)
    assert (tmp_path / "pareto.png").exists()


def test_each_panel_joins_the_front_of_its_own_two_axes(info, records):
    view = view_front(info, made_up.DENSE, records)
    assert [panel.x.metric for panel in view.panels] == ["flops", "throughput", "params"]
    less, more = (lambda a, b: a < b), (lambda a, b: a > b)
    for panel, better in zip(view.panels, (less, more, less), strict=True):
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
