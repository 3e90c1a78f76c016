"""The files that show a front: ``pareto.html``, ``pareto.png`` and ``front.csv``."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from lrsearch.observer import SweepInfo
from lrsearch.record import DenseRecord, TrialRecord
from lrsearch.tracking.panels import view_front
from lrsearch.tracking.pareto_page import write_page
from lrsearch.tracking.pareto_picture import write_picture
from lrsearch.tracking.story import Story


def write_front(
    folder: Path, info: SweepInfo, dense: DenseRecord, records: Sequence[TrialRecord], story: Story
) -> None:
    """Write the three files into an existing folder.

    Args:
        folder: where to.
        info: names the sweep and its objectives, which give the panels.
        dense: the reference of every panel.
        records: every finished trial, ``pareto`` set.
        story: what the page tells beside the front.
    """
    view = view_front(info, dense, records)
    write_page(folder / "pareto.html", view, story)
    write_picture(folder / "pareto.png", view)
    _write_table(folder / "front.csv", view.front)


def _write_table(path: Path, front: Sequence[TrialRecord]) -> None:
    """The front's records with the keys of the JSON output; nested values as JSON."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(TrialRecord)])
        writer.writeheader()
        for record in front:
            nested = {key: json.dumps(getattr(record, key)) for key in ("hyperparameters", "extra")}
            writer.writerow(record.to_json() | nested)
