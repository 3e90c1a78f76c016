"""A sweep as one page that opens anywhere: no network, no server, no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from lrsearch.record import TrialRecord
from lrsearch.tracking.layer_profile import rank_summary
from lrsearch.tracking.links import DEFAULT_SERVER
from lrsearch.tracking.page_tables import answer_cards, front_table, layer_table
from lrsearch.tracking.panels import FrontView, Panel, hyperparameter_text
from lrsearch.tracking.parallel import coordinates
from lrsearch.tracking.story import Story

_TEMPLATE = Path(__file__).with_suffix(".html")


def write_page(path: Path, view: FrontView, story: Story) -> None:
    """Write the page: the answers, the front in pictures and as a table, the layers, how the search went."""
    from plotly.offline import get_plotlyjs

    content = json.dumps(_content(view, story), separators=(",", ":"), allow_nan=False)
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(view.title),
        subtitle=escape(view.subtitle),
        question=escape(story.question),
        style=_TEMPLATE.with_suffix(".css").read_text(encoding="utf-8"),
        answers=answer_cards(view),
        legend="".join(_legend_entry(method, colour) for method, colour in view.colours.items()),
        front=front_table(view, story),
        layers=layer_table(view, story),
        plotly=get_plotlyjs(),  # a link to it would need the internet
        content=content.replace("<", "\\u003c"),  # nothing in it ends the script element
        script=_TEMPLATE.with_suffix(".js").read_text(encoding="utf-8"),
    )
    path.write_text(page, encoding="utf-8")


def _content(view: FrontView, story: Story) -> dict[str, Any]:
    """What the page's script draws."""
    server = story.links.server if story.links else DEFAULT_SERVER
    return {
        "colours": view.colours,
        "trials": {record.number: _trial(record, story) for record in story.trials},
        "panels": [_panel(panel) for panel in view.panels],
        "hypervolumes": [round(volume, 6) for volume in story.hypervolumes],
        "importances": story.importances,
        "coordinates": _coordinates(view.colours, story.trials),
        "server": server,
        "local": server == DEFAULT_SERVER,
    }


def _trial(record: TrialRecord, story: Story) -> dict[str, Any]:
    known = {
        "method": record.method,
        "pareto": record.pareto,
        "accuracy": record.accuracy,
        "lost": record.accuracy_drop,
        "test": record.test_accuracy,
        "mean": record.extra.get("accuracy_mean"),
        "std": record.extra.get("accuracy_std"),
        "cr_p": record.cr_p,
        "cr_f": record.cr_f,
        "speedup": record.speedup,
        "throughput": record.throughput,
        "seed": record.seed,
        "hyperparameters": hyperparameter_text(record.hyperparameters),
        "ranks": rank_summary(story.layers.get(record.number, ())),
        "run": story.links.trial(record.number) if story.links else None,
    }
    return {
        key: float(f"{value:.7g}") if isinstance(value, float) else value
        for key, value in known.items()
        if value is not None and value == value  # noqa: PLR0124 - JSON knows no NaN
    }


def _panel(panel: Panel) -> dict[str, Any]:
    reference = None if panel.x.dense is None or panel.y.dense is None else [panel.x.dense, panel.y.dense]
    return {
        "x": panel.x.title,
        "y": panel.y.title,
        "repeated": [[record.number, x, mean, std] for record, x, mean, std in panel.repeated()],
        "range": panel.y_range(),
        "points": [[point.record.number, point.x, point.y] for point in panel.points],
        "line": [[point.x, point.y] for point in panel.points if point.joined],
        "dense": reference,
    }


def _coordinates(methods: Mapping[str, str], trials: Sequence[TrialRecord]) -> dict[str, Any]:
    drawn = {}
    for method in methods:
        axes, lines = coordinates([record for record in trials if record.method == method])
        if lines:
            drawn[method] = {
                "axes": [{"title": axis.title, "ticks": axis.ticks} for axis in axes],
                "lines": list(lines.items()),
            }
    return drawn


def _legend_entry(method: str, colour: str) -> str:
    name = escape(method)
    dot = f'<i class="dot" style="background:{colour}"></i>'
    return f'<button aria-pressed="true" data-method="{name}" title="show or hide">{dot}{name}</button>'
