"""The front as one page that opens anywhere: no network, no server, no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from lrsearch.record import DenseRecord, TrialRecord
from lrsearch.tracking.panels import FrontView, Panel, hyperparameter_text

_INK, _PALE, _GRID = "#222222", "#8a8f98", "#e6e8eb"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_TEMPLATE = Path(__file__).with_suffix(".html")
_PLOTLY = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
_TEXT_COLUMNS = ("method", "hyperparameters")
_COLUMNS = ("trial", "method", "accuracy, %", "CR-P, %", "CR-F, %", "speed-up", "images/s", "hyperparameters")


def write_page(path: Path, view: FrontView) -> None:
    """Write the panels beside or, on a narrow screen, below each other; then the front as a table."""
    sections = [
        _figure(panel, view.colours).to_html(
            full_html=False,
            include_plotlyjs=number == 0,  # the library itself, once, because a link to it needs the internet
            div_id=f"panel-{number}",
            default_height="420px",
            config=_PLOTLY,
        )
        for number, panel in enumerate(view.panels)
    ]
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(view.title),
        subtitle=escape(view.subtitle),
        legend="".join(_legend_entry(method, colour) for method, colour in view.colours.items()),
        answers="".join(_answer(question, r, view.colours[r.method]) for question, r in view.answers.items()),
        figures="".join(f'<section class="panel">{section}</section>' for section in sections),
        head="".join(f"<th{_text_class(column)}>{column}</th>" for column in _COLUMNS),
        rows=_dense_row(view.dense) + "".join(_row(r, view.colours[r.method]) for r in view.front),
    )
    path.write_text(page, encoding="utf-8")


def _figure(panel: Panel, colours: Mapping[str, str]) -> Any:
    from plotly.graph_objects import Figure

    traces = [_front_line(panel)]
    for method, colour in colours.items():
        traces += [_trials(panel, method, colour, pareto) for pareto in (False, True)]
    if panel.x.dense is not None and panel.y.dense is not None:
        traces.append(_dense_star(panel.x.dense, panel.y.dense))
    axis = {"gridcolor": _GRID, "linecolor": "#c9cdd3", "zeroline": False, "automargin": True}
    layout = {
        "font": {"family": _FONT, "size": 13, "color": _INK},
        "margin": {"l": 10, "r": 10, "t": 28, "b": 10},
        "plot_bgcolor": "white",
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": "#c9cdd3",
            "font": {"color": _INK},
            "align": "left",
        },
        "xaxis": {**axis, "nticks": 8, "title": {"text": panel.x.title}},
        "yaxis": {**axis, "title": {"text": panel.y.title}, "range": panel.y_range()},
    }
    return Figure(traces, layout)


def _front_line(panel: Panel) -> Any:
    from plotly.graph_objects import Scatter

    line = [point for point in panel.points if point.joined]
    pen = {"color": _PALE, "width": 1.6}
    return Scatter(x=[p.x for p in line], y=[p.y for p in line], mode="lines", line=pen, hoverinfo="skip")


def _trials(panel: Panel, method: str, colour: str, pareto: bool) -> Any:
    from plotly.graph_objects import Scatter

    points = [p for p in panel.points if p.record.method == method and p.record.pareto == pareto]
    return Scatter(
        x=[point.x for point in points],
        y=[point.y for point in points],
        text=[_hover(point.record) for point in points],
        customdata=[point.record.number for point in points],
        meta=method,  # the page's legend finds a method's traces by it
        mode="markers",
        hovertemplate="%{text}<extra></extra>",
        marker={
            "color": colour,
            "size": 12 if pareto else 8,
            "opacity": 1.0 if pareto else 0.3,
            "line": {"color": "white", "width": 1 if pareto else 0},
        },
    )


def _dense_star(x: float, y: float) -> Any:
    from plotly.graph_objects import Scatter

    return Scatter(
        x=[x],
        y=[y],
        mode="markers",
        hovertemplate="<b>dense network</b><extra></extra>",
        marker={"symbol": "star", "size": 17, "color": _INK, "line": {"color": "white", "width": 1}},
    )


def _hover(record: TrialRecord) -> str:
    accuracy = _number(record.accuracy, ".2f", " %")
    drop = _number(record.accuracy_drop, ".2f", " points")
    lines = [
        f"<b>trial {record.number} · {escape(record.method)}</b>",
        escape(hyperparameter_text(record.hyperparameters)),
        f"accuracy {accuracy} (lost {drop})",
        f"CR-P {_number(record.cr_p, '.1f', ' %')} · CR-F {_number(record.cr_f, '.1f', ' %')}",
        f"speed-up {_number(record.speedup, '.2f', '×')} ({_number(record.throughput, ',.0f')} images/s)",
    ]
    return "<br>".join(filter(None, lines))


def _legend_entry(method: str, colour: str) -> str:
    name = escape(method)
    dot = f'<i class="dot" style="background:{colour}"></i>'
    return f'<button aria-pressed="true" data-method="{name}" title="show or hide">{dot}{name}</button>'


def _answer(question: str, record: TrialRecord, colour: str) -> str:
    """A card: what was asked, which network it is, what it costs and gains."""
    network = f'<i class="dot" style="background:{colour}"></i>trial {record.number} · {escape(record.method)}'
    lost = "–" if record.accuracy_drop is None else f"{0.0 - record.accuracy_drop:+.2f}"
    gains = f"accuracy {_number(record.accuracy, '.2f', ' %')} ({lost}), {_number(record.speedup, '.2f', '×')} as fast"
    sizes = f"CR-P {_number(record.cr_p, '.1f', ' %')}, CR-F {_number(record.cr_f, '.1f', ' %')}"
    return f'<div class="answer"><p>{escape(question)}</p><b>{network}</b><p>{gains}</p><p>{sizes}</p></div>'


def _dense_row(dense: DenseRecord) -> str:
    cells = ["", "★ dense", f"{dense.accuracy:.2f}", "0.0", "0.0", "1.00×", f"{dense.throughput:,.0f}", ""]
    return _cells(cells, "reference")


def _row(record: TrialRecord, colour: str) -> str:
    speedup = _number(record.speedup, ".2f", "×")
    if record.speedup is not None and record.speedup < 1:
        speedup = f'<span class="slower" title="slower than the dense network">{speedup}</span>'
    return _cells(
        [
            str(record.number),
            f'<i class="dot" style="background:{colour}"></i>{escape(record.method)}',
            _number(record.accuracy, ".2f"),
            _number(record.cr_p, ".1f"),
            _number(record.cr_f, ".1f"),
            speedup,
            _number(record.throughput, ",.0f"),
            escape(hyperparameter_text(record.hyperparameters)),
        ]
    )


def _cells(cells: Sequence[str], css_class: str = "") -> str:
    inner = "".join(f"<td{_text_class(column)}>{cell}</td>" for column, cell in zip(_COLUMNS, cells, strict=True))
    return f'<tr class="{css_class}">{inner}</tr>'


def _text_class(column: str) -> str:
    return ' class="text"' if column in _TEXT_COLUMNS else ""


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"
