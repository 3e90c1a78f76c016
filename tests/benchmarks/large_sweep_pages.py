"""How pages and the MLflow UI bear a large sweep: ``python tests/benchmarks/large_sweep_pages.py [TRIALS ...]``.

Trials are made up, with twenty layers each. The pages are opened in Debian's Chromium without a window, where there is
one: seconds from asking for an address to what a reader came for, the median of a few visits.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tracking"))

import browser
import made_up_sweep as made_up
from mlflow_ui import mlflow_ui

from lrsearch.files import write_json
from lrsearch.tracking import Tracker, find_runs
from lrsearch.tracking.panels import view_front
from lrsearch.tracking.pareto_page import write_page
from lrsearch.tracking.pareto_picture import write_picture
from lrsearch.tracking.story import start_course, tell_story

LAYERS = [
    {"layer": f"layer{i}.conv", "shape": [64, 64, 3, 3], "kind": "svd", "ranks": [9, 9, 9], "reason": None,
     "dense_params": 36864, "params": 6912, "error": 0.3}
    for i in range(20)
]  # fmt: skip
VISITS = 3
DRAWN = """
    const plots = [...document.querySelectorAll(".plot")];
    return plots.length > 0 && plots.every(plot => plot._fullLayout && plot._fullLayout.width === plot.clientWidth);
"""
HOVER = """
    const told = arguments[0], plot = document.querySelector("#panels .plot");
    const layers = () => [...document.querySelectorAll("#panels .hoverlayer")].map(layer => layer.textContent);
    const {xaxis, yaxis} = plot._fullLayout, frame = plot.getBoundingClientRect();
    const front = content.panels[0].points.find(([id]) => content.trials[id].pareto);
    const clientX = frame.x + xaxis._offset + xaxis.l2p(front[1]);
    const clientY = frame.y + yaxis._offset + yaxis.l2p(front[2]);
    document.querySelectorAll("#panels .plot").forEach(each => Plotly.Fx.unhover(each));
    const begun = performance.now();
    plot.querySelector(".nsewdrag").dispatchEvent(new MouseEvent("mousemove", {clientX, clientY, bubbles: true}));
    const look = () => layers().every(Boolean) ? told(performance.now() - begun) : setTimeout(look, 1);
    look();
"""


def seconds(action: Callable[[], object]) -> float:
    """Of wall time."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


def play(storage: Path, trials: int):
    """A finished sweep in MLflow."""
    info = made_up.sweep_info(storage, trials)
    for number in range(trials):
        write_json(info.folder / "trials" / str(number) / "layers.json", LAYERS)
    tracker = Tracker(None, storage)
    made_up.begin(tracker, info)
    records = made_up.replay(tracker, info, range(trials))
    tracker.sweep_stopped("interrupted")  # made-up trials have no networks to be logged
    return info, records


def written(storage: Path, info, records) -> dict[str, float]:
    """What drawing the front costs the tracker's thread."""
    links = find_runs(None, storage, info.name)
    course = start_course(info, made_up.DENSE)
    path = storage / "page.html"
    told = {"front": sum(record.pareto for record in records)}
    told["course, all trials, s"] = seconds(lambda: course.extend(records[:-1]))
    told["course, one more, s"] = seconds(lambda: course.extend(records))
    story = tell_story(info, made_up.DENSE, records, links, course)
    view = view_front(info, made_up.DENSE, records)
    told["page, s"] = statistics.median(seconds(lambda: write_page(path, view, story)) for _ in range(VISITS))
    told["picture, s"] = seconds(lambda: write_picture(storage / "page.png", view))
    from plotly.offline import get_plotlyjs

    told["page, MB"] = path.stat().st_size / 1e6
    told["without plotly, MB"] = (path.stat().st_size - len(get_plotlyjs().encode())) / 1e6
    return told


def visited(storage: Path, info) -> dict[str, float]:
    """What a reader waits for."""
    links = find_runs(None, storage, info.name)
    told: dict[str, float] = {}
    with mlflow_ui(storage) as ui, browser.chromium() as driver:
        tail = "?workflowType=machine_learning"
        pages = {
            "UI: the sweep's runs, s": (
                f"#/experiments/{links.experiment_id}/runs{tail}",
                "[role=row] a[href*='/runs/']",
            ),
            "UI: the sweep's run, s": (links.parent(), "td a[href*='/runs/']"),
            "UI: a trial's run, s": (links.trial(0), "h2"),
            "UI: page of the front, s": (links.parent("front/pareto.html"), "iframe.mlflow-html-iframe"),
        }
        for name, (address, sign) in pages.items():
            told[name] = statistics.median(visit(driver, f"{ui}/{address}", sign) for _ in range(VISITS))
        told["hover in three panels, ms"] = statistics.median(driver.execute_async_script(HOVER) for _ in range(VISITS))
    return told


def visit(driver, address: str, sign: str) -> float:
    """Seconds until the sign is there; the driver is left in the page's frame where it has one."""
    driver.switch_to.default_content()
    driver.get("about:blank")
    began = time.monotonic()
    driver.get(address)
    found = browser.wait_for(driver, lambda d: d.find_element("css selector", sign))
    if sign.startswith("iframe"):
        driver.switch_to.frame(found)
        browser.wait_for(driver, lambda d: d.execute_script(DRAWN))
    return time.monotonic() - began


def main(counts: list[int]) -> None:
    """One column for each number of trials."""
    columns = []
    for trials in counts:
        with tempfile.TemporaryDirectory() as folder:
            info, records = play(Path(folder), trials)
            column = written(Path(folder), info, records)
            if (missing := browser.missing()) is None:
                column |= visited(Path(folder), info)
            else:
                print(f"not opened in a browser: no {missing} here")
            columns.append(column)
    print(f"{'trials':28}" + "".join(f"{trials:>10,}" for trials in counts))
    for name in columns[0]:
        print(f"{name:28}" + "".join(f"{column[name]:>10.4g}" for column in columns))


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [100, 1000])
