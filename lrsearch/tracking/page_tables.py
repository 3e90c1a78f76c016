"""The parts of a sweep's page that are text: answers, the front as a table, the layers of its members."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from lrsearch.record import DenseRecord, TrialRecord
from lrsearch.tracking.layer_profile import kept, rank_text
from lrsearch.tracking.panels import FrontView, hyperparameter_text
from lrsearch.tracking.story import Story

_TEXT_COLUMNS = ("method", "hyperparameters")
_COLUMNS = ("trial", "method", "accuracy, %", "test, %", "repeated, %", "CR-P, %", "CR-F, %",
            "throughput", "images/s", "hyperparameters")  # fmt: skip
_PRINTED_COLUMNS = 6
"""Networks of the layers' table that fit on paper."""


def answer_cards(view: FrontView) -> str:
    """What a reader asks first: which network it is, what it costs and gains."""
    return "".join(_answer(question, record, view.colours[record.method]) for question, record in view.answers.items())


def front_table(view: FrontView, story: Story) -> str:
    """The front, the dense network first; columns that say nothing are left out."""
    rows = [_dense_cells(view.dense), *(_cells(record, view.colours, story) for record in view.front)]
    shown = [i for i, column in enumerate(_COLUMNS) if any(row[i] for row in rows[1:]) or column == "trial"]
    head = "".join(f"<th{_text_class(_COLUMNS[i])}>{_COLUMNS[i]}</th>" for i in shown)
    body = "".join(
        f'<tr class="{"" if number else "reference"}">'
        + "".join(f"<td{_text_class(_COLUMNS[i])}>{row[i]}</td>" for i in shown)
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def layer_table(view: FrontView, story: Story) -> str:
    """Layers below each other, members of the front side by side: ranks, and in colour how much is left."""
    members = [record for record in view.front if story.layers.get(record.number)]
    if not members:
        return ""
    printed = {record.number for record in (*view.answers.values(), *members[:_PRINTED_COLUMNS])}
    heads = "".join(
        f'<th class="{_screen_only(record, printed)}">{_trial_name(record, view.colours, story)}</th>'
        for record in members
    )
    columns = [{entry["layer"]: entry for entry in story.layers[record.number]} for record in members]
    first = {name: entry for column in reversed(columns) for name, entry in column.items()}
    rows = "".join(
        f'<tr><th class="text" title="weight {_shape(entry)}">{escape(name)}</th>'
        + "".join(
            _layer_cell(column.get(name), _screen_only(record, printed))
            for column, record in zip(columns, members, strict=True)
        )
        + "</tr>"
        for name, entry in first.items()
    )
    table = (
        f'<table class="layers"><thead><tr><th class="text">layer</th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    )
    return f'<h2>What is left of each layer</h2><p>{_LAYERS_NOTE}</p><div class="scroll">{table}</div>'


_LAYERS_NOTE = (
    "Ranks of each layer in the members of the front. The darker, the more of the layer's parameters are left; "
    "<b>dense</b> layers are unchanged. 3×14 are three subspaces of rank 14 each, 12·10 the pair of a Tucker-2 or "
    "tensor train, 16→24 the channels that pruning left. Hover a cell for the relative error of the weight before "
    "retraining."
)


def _screen_only(record: TrialRecord, printed: set[int]) -> str:
    return "" if record.number in printed else "screen"


def _layer_cell(entry: Mapping[str, Any] | None, css_class: str) -> str:
    if entry is None:
        return f'<td class="{css_class}"></td>'
    error = "" if entry["error"] is None or entry["kind"] == "dense" else f", error {entry['error']:.3f}"
    told = f"{entry['kind']}: {100 * kept(entry):.0f} % of parameters left{error}"
    told = escape(f"dense: {entry['reason']}" if entry["kind"] == "dense" and entry["reason"] else told)
    return f'<td class="{css_class}" style="--kept:{kept(entry):.2f}" title="{told}">{rank_text(entry)}</td>'


def _shape(entry: Mapping[str, Any]) -> str:
    return "×".join(map(str, entry["shape"]))


def _trial_name(record: TrialRecord, colours: Mapping[str, str], story: Story) -> str:
    """A trial's number and colour, linked to its run where there is one."""
    run = story.links.trial(record.number) if story.links else None
    name = f"{_dot(colours[record.method])}{record.number}"
    if story.links is None or run is None:
        return name
    address = escape(f"{story.links.server}/{run}")
    return f'<a href="{address}" data-run="{escape(run)}" target="_blank" rel="noopener">{name}</a>'


def _answer(question: str, record: TrialRecord, colour: str) -> str:
    network = f"{_dot(colour)}trial {record.number} · {escape(record.method)}"
    lost = "–" if record.accuracy_drop is None else f"{0.0 - record.accuracy_drop:+.2f}"
    speed = f"{_number(record.speedup, '.2f', '×')} the throughput"
    gains = f"accuracy {_number(record.accuracy, '.2f', ' %')} ({lost}), {speed}"
    sizes = f"CR-P {_number(record.cr_p, '.1f', ' %')}, CR-F {_number(record.cr_f, '.1f', ' %')}"
    return f'<div class="answer"><p>{escape(question)}</p><b>{network}</b><p>{gains}</p><p>{sizes}</p></div>'


def _dense_cells(dense: DenseRecord) -> list[str]:
    accuracies = [f"{dense.accuracy:.2f}", f"{dense.test_accuracy:.2f}", ""]
    return ["", "★ dense", *accuracies, "0.0", "0.0", "1.00×", f"{dense.throughput:,.0f}", ""]


def _cells(record: TrialRecord, colours: Mapping[str, str], story: Story) -> list[str]:
    speedup = _number(record.speedup, ".2f", "×")
    if record.speedup is not None and record.speedup < 1:
        speedup = f'<span class="slower" title="slower than the dense network">{speedup}</span>'
    return [
        _trial_name(record, colours, story),
        escape(record.method),
        _number(record.accuracy, ".2f"),
        "" if record.test_accuracy is None else f"{record.test_accuracy:.2f}",
        _repeated(record.extra),
        _number(record.cr_p, ".1f"),
        _number(record.cr_f, ".1f"),
        speedup,
        _number(record.throughput, ",.0f"),
        escape(hyperparameter_text(record.hyperparameters)),
    ]


def _repeated(extra: Mapping[str, float]) -> str:
    """Mean and standard deviation over other seeds."""
    mean, std = extra.get("accuracy_mean"), extra.get("accuracy_std")
    return "" if mean is None or std is None else f"{mean:.2f} ± {std:.2f}"


def _dot(colour: str) -> str:
    return f'<i class="dot" style="background:{colour}"></i>'


def _text_class(column: str) -> str:
    return ' class="text"' if column in _TEXT_COLUMNS else ""


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"
