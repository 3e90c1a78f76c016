"""Delta-tables: how far each method goes at each accepted loss of accuracy (ALDS, NeurIPS 2021, table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from lrsearch.front import most_compressed
from lrsearch.record import TrialRecord

Row = Mapping[str, Any]


def delta_rows(trials: Sequence[TrialRecord], drops: Sequence[float]) -> list[dict[str, Any]]:
    """For each method and accepted loss of accuracy its smallest network, JSON-ready; figures None without one."""
    rows = []
    for method in sorted({trial.method for trial in trials}):
        own = [trial for trial in trials if trial.method == method]
        for drop in drops:
            found = most_compressed(own, drop)
            figures = {
                "trial": found.number if found else None,
                **{key: getattr(found, key, None) for key in ("accuracy_drop", "cr_p", "cr_f", "speedup")},
            }
            rows.append({"method": method, "drop": drop, **figures})
    return rows


def delta_table(rows: Sequence[Row]) -> Table:
    """A delta-table: one line per method and accepted loss of accuracy."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method")
    for heading in ("drop at most", "drop", "CR-P %", "CR-F %", "speed-up", "trial"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["method"],
            f"{row['drop']:g}",
            _figure(row["accuracy_drop"], 2),
            _figure(row["cr_p"], 1),
            _figure(row["cr_f"], 1),
            _figure(row["speedup"], 2, "x"),
            "-" if row["trial"] is None else str(row["trial"]),
        )
    return table


def delta_latex(rows: Sequence[Row]) -> str:
    """The delta-table as the paper prints it: a line per method, Top-1, CR-P and CR-F at each accepted loss."""
    drops = list(dict.fromkeys(row["drop"] for row in rows))
    lines = [
        rf"\begin{{tabular}}{{l{'rrr' * len(drops)}}}",
        " & ".join(["", *(rf"\multicolumn{{3}}{{c}}{{$\delta={drop:g}\%$}}" for drop in drops)]) + r" \\",
        " & ".join(["Method", *[r"$\Delta$ Top-1", "CR-P", "CR-F"] * len(drops)]) + r" \\ \hline",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [method.replace("_", r"\_")]
        for row in rows:
            if row["method"] == method:
                change = None if row["accuracy_drop"] is None else -row["accuracy_drop"]
                cells += [_figure(change, 2), _figure(row["cr_p"], 2), _figure(row["cr_f"], 2)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\end{tabular}"])


def _figure(value: float | None, digits: int, unit: str = "") -> str:
    return "-" if value is None else f"{value:.{digits}f}{unit}"
