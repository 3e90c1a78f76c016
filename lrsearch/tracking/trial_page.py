"""A trial as a small page without scripts: its training, and what became of each layer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from lrsearch.files import replacing
from lrsearch.record import TrialRecord
from lrsearch.tracking.curve import curve
from lrsearch.tracking.layer_profile import Entries, kept, rank_summary, rank_text, read_layers
from lrsearch.tracking.panels import hyperparameter_text
from lrsearch.tracking.store import first_line

_log = logging.getLogger(__name__)
_TEMPLATE = Path(__file__).with_suffix(".html")
_CURVES = {"loss": "training loss", "accuracy": "validation accuracy, %", "lr": "learning rate"}
_COLUMNS = ("layer", "weight", "kind", "ranks", "parameters", "left", "error", "why dense")
_NUMBERS = ("parameters", "left", "error")


def draw_trial(folder: Path, record: TrialRecord, epochs: Sequence[Mapping[str, float]]) -> list[Path]:
    """Write ``trial.html`` into a trial's folder, unless it is there or there is nothing to show; returns its path."""
    path = folder / "trial.html"
    try:
        layers = read_layers(folder)
        if not path.exists() and (layers or epochs):
            with replacing(path) as temporary:
                temporary.write_text(_page(record, epochs, layers), encoding="utf-8")
    except Exception as error:  # a page is not worth the numbers that come after it
        _log.warning("trial %d cannot be shown as a page: %s", record.number, first_line(error))
    return [path] if path.exists() else []


def _page(record: TrialRecord, epochs: Sequence[Mapping[str, float]], layers: Entries) -> str:
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=f"trial {record.number} · {escape(record.method)}",
        hyperparameters=escape(hyperparameter_text(record.hyperparameters)),
        result=" · ".join(_result(record)),
        ranks=(rank_summary(layers) or "no layer was replaced").capitalize(),
        curves="".join(_curves(epochs)),
        head="".join(f"<th{_number_class(column)}>{column}</th>" for column in _COLUMNS),
        rows="".join(map(_row, layers)),
    )


def _result(record: TrialRecord) -> list[str]:
    known = {
        "accuracy {:.2f} %": record.accuracy,
        "{:+.2f} points against the dense network": record.accuracy_drop and -record.accuracy_drop,
        "CR-P {:.1f} %": record.cr_p,
        "CR-F {:.1f} %": record.cr_f,
        "{:.2f}× the throughput": record.speedup,
        "seed {}": record.seed,
    }
    told = [form.format(value) for form, value in known.items() if value is not None]
    return [*told, escape(record.reason)] if record.reason else told


def _curves(epochs: Sequence[Mapping[str, float]]) -> list[str]:
    return [
        f"<figure>{curve([(epoch['epoch'], epoch[key]) for epoch in epochs if key in epoch])}"
        f"<figcaption>{title}, by epoch</figcaption></figure>"
        for key, title in _CURVES.items()
        if any(key in epoch for epoch in epochs)
    ]


def _row(entry: Mapping[str, Any]) -> str:
    left, error = kept(entry), entry["error"]
    changed = entry["kind"] != "dense"
    cells = {
        "layer": escape(entry["layer"]),
        "weight": "×".join(map(str, entry["shape"])),
        "kind": entry["kind"],
        "ranks": rank_text(entry) if changed else "",
        "parameters": f"{entry['params']:,}",
        "left": _bar(left, f"{100 * left:.0f} %"),
        "error": _bar(error, f"{error:.3f}") if changed and error is not None else "",
        "why dense": escape(entry["reason"] or ""),
    }
    return "<tr>" + "".join(f"<td{_number_class(name)}>{cell}</td>" for name, cell in cells.items()) + "</tr>"


def _bar(share: float, text: str) -> str:
    return f'<i style="width:{100 * min(1.0, share):.0f}%"></i>{text}'


def _number_class(column: str) -> str:
    return ' class="number"' if column in _NUMBERS else ""
