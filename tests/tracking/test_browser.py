"""The pages in a browser: drawn without a fault, and one click from a network to its run."""

from __future__ import annotations

import browser
import made_up_sweep as made_up
import pytest
from mlflow_ui import mlflow_ui

from lrsearch.files import write_json
from lrsearch.tracking import Tracker, find_runs
from lrsearch.tracking.panels import view_front
from lrsearch.tracking.pareto_page import write_page
from lrsearch.tracking.story import tell_story
from lrsearch.tracking.trial_page import draw_trial

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.missing() is not None, reason=f"no {browser.missing()} here"),
]
TRIALS = 12
POINT = """
    const [panel, number] = arguments, plot = document.querySelectorAll("#panels .plot")[panel];
    plot.scrollIntoView({block: "center"});
    const {xaxis, yaxis} = plot._fullLayout, frame = plot.getBoundingClientRect();
    const [, x, y] = content.panels[panel].points.find(([id]) => id === number);
    return [frame.x + xaxis._offset + xaxis.l2p(x), frame.y + yaxis._offset + yaxis.l2p(y)].map(Math.round);
"""
DRAWN = """
    const plots = [...document.querySelectorAll(".plot")];
    return plots.length > 0 && plots.every(plot => plot._fullLayout && plot._fullLayout.width === plot.clientWidth);
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, empty_store_of_module):
    """The storage of a sweep that MLflow knows, its front, and what a page is made of."""
    storage = empty_store_of_module
    info = made_up.sweep_info(storage, TRIALS)
    for number in range(TRIALS):
        entry = {"layer": "conv", "shape": [8, 4, 3, 3], "kind": "svd", "ranks": [3], "reason": None}
        entry |= {"dense_params": 288, "params": 96, "error": 0.2}
        write_json(info.folder / "trials" / str(number) / "layers.json", [entry])
    tracker = Tracker(None, storage)
    made_up.begin(tracker, info)
    records = made_up.replay(tracker, info, range(TRIALS))
    tracker.sweep_stopped("finished")
    return storage, info, records


@pytest.fixture(scope="module")
def driver():
    with browser.chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def report(sweep, tmp_path_factory):
    """The address of the sweep's report."""
    _, info, records = sweep
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(path, view_front(info, made_up.DENSE, records), tell_story(info, made_up.DENSE, records))
    return path.as_uri()


@pytest.fixture(scope="module")
def ui(sweep):
    with mlflow_ui(sweep[0]) as address:
        yield address


def open_page(driver, address):
    driver.get("about:blank")  # an address that differs behind the # alone is not loaded again
    driver.get(address)


def click_at(driver, panel, number, click=True):
    """Move the mouse to a trial in a panel, and click it."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    x, y = driver.execute_script(POINT, panel, number)
    actions = ActionBuilder(driver)
    actions.pointer_action.move_to_location(x - 3, y)
    actions.perform()
    ActionChains(driver).pause(0.2).perform()
    actions = ActionBuilder(driver)
    actions.pointer_action.move_to_location(x, y).pause(0.2)
    if click:
        actions.pointer_action.click()
    actions.perform()


def a_front_member(records):
    """One whose point no other covers."""
    front = sorted((record for record in records if record.pareto), key=lambda record: record.accuracy)
    return front[len(front) // 2]


@pytest.mark.parametrize("width", [1280, 390])
def test_everything_is_drawn_and_nothing_sticks_out(driver, report, width):
    driver.get_log("browser")
    browser.resize(driver, width, 844)
    open_page(driver, report)
    browser.wait_for(driver, lambda d: d.execute_script(DRAWN))
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    plots, empty = driver.execute_script(
        "const plots = [...document.querySelectorAll('.plot')];"
        "return [plots.length, plots.filter(plot => !plot.querySelector('.trace')).length]"
    )
    assert plots == 3 + 1 + 2 and empty == 0, "three panels, the course, a picture for each method"
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)") == []


@pytest.mark.parametrize("width", [1280, 390])
def test_a_trials_page_shows_curves_and_layers_and_nothing_sticks_out(driver, sweep, width):
    _, info, records = sweep
    (page,) = draw_trial(info.folder / "trials" / "0", records[0], made_up.history(0))
    browser.resize(driver, width, 844)
    open_page(driver, page.as_uri())
    assert [curve.is_displayed() for curve in driver.find_elements("tag name", "svg")] == [True] * 3
    assert len(driver.find_elements("tag name", "tr")) == 2, "the heading and a layer"
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width


def test_paper_is_not_overrun(driver, report):
    browser.resize(driver, 1280, 800)
    open_page(driver, report)
    browser.wait_for(driver, lambda d: d.execute_script(DRAWN))
    widths = driver.execute_script(
        "dispatchEvent(new Event('beforeprint'));"
        "return [...document.querySelectorAll('.main-svg')].map(svg => svg.getBoundingClientRect().right)"
    )
    assert max(widths) <= 700


def test_a_network_under_the_pointer_stands_out_in_every_panel(driver, report, sweep):
    browser.resize(driver, 1280, 800)
    open_page(driver, report)
    browser.wait_for(driver, lambda d: d.execute_script(DRAWN))
    member = a_front_member(sweep[2])
    click_at(driver, 0, member.number, click=False)
    hovered = browser.wait_for(
        driver,
        lambda d: (
            (
                found := d.execute_script(
                    "return [...document.querySelectorAll('#panels .hoverlayer')].map(layer => layer.textContent)"
                )
            )
            and all(found)
            and found
        ),
    )
    told = (f"trial {member.number} · {member.method}", "ranks 3–3", f"seed {member.seed}")
    assert all(each in text for text in hovered for each in told) and len(hovered) == 3


def test_a_method_can_be_hidden(driver, report):
    open_page(driver, report)
    browser.wait_for(driver, lambda d: d.execute_script(DRAWN))
    driver.execute_script("document.querySelector('.legend button[data-method=tucker]').click()")
    shown = driver.execute_script(
        "return [...document.querySelectorAll('.plot')].flatMap(plot => plot.data)"
        ".filter(trace => trace.meta && trace.visible !== false).map(trace => trace.meta)"
    )
    assert set(shown) == {"alds"}


def test_a_click_on_the_report_leads_to_the_run(driver, sweep, ui, tmp_path):
    storage, info, records = sweep
    links = find_runs(None, storage, info.name)
    links = type(links)(links.experiment_id, links.parent_id, links.trials, ui)
    page = tmp_path / "report.html"
    write_page(page, view_front(info, made_up.DENSE, records), tell_story(info, made_up.DENSE, records, links))
    browser.resize(driver, 1280, 800)
    open_page(driver, page.as_uri())
    browser.wait_for(driver, lambda d: d.execute_script(DRAWN))
    chosen = a_front_member(records)
    click_at(driver, 1, chosen.number)
    link = browser.wait_for(driver, lambda d: d.find_element("css selector", "#chosen a"))
    first = driver.current_window_handle
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)
    link.click()
    browser.wait_for(driver, lambda d: len(d.window_handles) == 2)
    driver.switch_to.window(next(handle for handle in driver.window_handles if handle != first))
    assert_shows_run(driver, chosen)
    driver.close()
    driver.switch_to.window(first)


def test_a_click_inside_the_ui_tells_the_address_of_the_run(driver, sweep, ui):
    storage, info, records = sweep
    links = find_runs(None, storage, info.name)
    browser.resize(driver, 1280, 800)
    open_page(driver, f"{ui}/{links.parent('front/pareto.html')}")
    frame = browser.wait_for(driver, lambda d: d.find_element("css selector", "iframe.mlflow-html-iframe"))
    driver.switch_to.frame(frame)
    browser.wait_for(driver, lambda d: d.execute_script(DRAWN))
    chosen = a_front_member(records)
    # The mouse is placed by the window, the point by the frame: let Plotly have the click.
    driver.execute_script(
        "document.querySelector('#panels .plot').emit('plotly_click', {points: [{customdata: arguments[0]}]})",
        chosen.number,
    )
    field = browser.wait_for(driver, lambda d: d.find_element("css selector", "#chosen input"))
    address = field.get_attribute("value")
    driver.switch_to.default_content()
    assert address.startswith(ui)
    open_page(driver, address)
    assert_shows_run(driver, chosen)


def test_the_description_leads_to_the_knee(driver, sweep, ui):
    storage, info, records = sweep
    links = find_runs(None, storage, info.name)
    browser.resize(driver, 1280, 3000)
    open_page(driver, f"{ui}/{links.parent()}")
    knee = view_front(info, made_up.DENSE, records).answers["knee of the front"]
    run = links.trials[knee.number]
    link = browser.wait_for(driver, lambda d: d.find_element("css selector", f"td a[href*='{run}']"))
    open_page(driver, link.get_attribute("href"))
    assert_shows_run(driver, knee)


def assert_shows_run(driver, record):
    title = f"{record.number} {record.method}"
    browser.wait_for(driver, lambda d: d.find_element("tag name", "h2").text == title)
    browser.wait_for(driver, lambda d: f"digits/{record.number}" in d.find_element("tag name", "body").text)
