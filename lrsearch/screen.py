"""What a person sees in a terminal: tables of results, and a sweep while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lrsearch.object_storage import shown
from lrsearch.observer import SweepInfo
from lrsearch.record import DenseRecord, Report, TrialRecord

if TYPE_CHECKING:
    from lrsearch.doctor import Finding
    from lrsearch.methods.base import Progress

_SLOWER = "x!"
_VERDICTS = {"ok": "green", "note": "yellow", "fix": "bold red"}
Row = Mapping[str, Any]


def short(hyperparameters: Mapping[str, Any]) -> str:
    """Hyperparameters as one short text, the budget first: ``params=0.40 rule=max``."""
    words = []
    for key in sorted(hyperparameters, key=lambda key: key != "budget"):
        value = hyperparameters[key]
        if isinstance(value, Mapping):
            words.append(short(value))
        elif isinstance(value, float):
            words.append(f"{key}={value:.3g}")
        elif value is not None:
            words.append(f"{key}={value}")
    return " ".join(words)


def size_of(hyperparameters: Mapping[str, Any]) -> str:
    """What sets the size of a trial's network: its budget, or else its first number, such as ``alpha=2``."""
    if hyperparameters.get("budget") is not None:
        return short({"budget": hyperparameters["budget"]})
    numbers = {k: v for k, v in hyperparameters.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return short(dict(list(numbers.items())[:1]))


def front_rows(dense: DenseRecord | None, front: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """The front as JSON-ready rows with the same keys everywhere, the dense network first."""
    rows = [record.to_json() for record in front]
    return ([dense_row(dense)] if dense else []) + rows


def dense_row(dense: DenseRecord) -> dict[str, Any]:
    """The dense network as a row among trials: method ``dense``, number None."""
    row = TrialRecord(
        number=-1,
        state="complete",
        method="dense",
        params=dense.params,
        flops=dense.flops,
        cr_p=0.0,
        cr_f=0.0,
        accuracy=dense.accuracy,
        accuracy_drop=0.0,
        throughput=dense.throughput,
        speedup=1.0,
        seconds=dense.seconds,
        test_accuracy=dense.test_accuracy,
    ).to_json()
    return row | {"number": None}


def front_table(rows: Sequence[Row]) -> Table:
    """The front as a table of at most 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("method", no_wrap=True)
    table.add_column("budget", no_wrap=True)
    for heading in ("acc %", "test %", "CR-P %", "CR-F %", "images/s", "speed-up"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        number = "" if row["number"] is None else str(row["number"])
        table.add_row(
            number,
            row["method"],
            size_of(row["hyperparameters"]),
            _number(row["accuracy"], 2),
            _tested(row),
            _number(row["cr_p"], 1),
            _number(row["cr_f"], 1),
            _number(row["throughput"], 0),
            _number(row["speedup"], 2, _SLOWER if row["extra"].get("slower_than_dense") else "x"),
            style="dim" if number == "" else "",
        )
    if any(row["extra"].get("slower_than_dense") for row in rows):
        table.caption = f"{_SLOWER}  fewer FLOPs than the dense network, but not faster"
        table.caption_justify = "left"
    return table


def status_table(rows: Sequence[Row]) -> Table:
    """One line per sweep."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sweep")
    for heading in ("trials", "finished", "failed", "pruned", "running", "front", "hypervolume"):
        table.add_column(heading, justify="right")
    for row in rows:
        keys = ("trials", "finished", "failed", "pruned", "running", "front_size")
        table.add_row(row["name"], *(str(row[key]) for key in keys), _number(row["hypervolume"], 4))
    return table


def facts_table(facts: Mapping[str, tuple[Any, Any]]) -> Table:
    """Figures of a compressed network beside the dense one's; what is not known is left out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("dense", justify="right")
    table.add_column("compressed", justify="right")
    for name, (dense, compressed) in facts.items():
        if compressed is not None:
            table.add_row(name, _figure(dense), _figure(compressed))
    return table


def finding_table(finding: Finding) -> Table:
    """One finding of the doctor, and what to do, beside its verdict."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for width in (4, 9, None):
        table.add_column(width=width)
    table.add_row(Text(finding.verdict, style=_VERDICTS[finding.verdict]), finding.what, finding.text)
    if finding.advice:
        table.add_row("", "", f"-> {finding.advice}")
    return table


class SweepScreen:
    """Watches a sweep: a live table in a terminal, one line per finished trial elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: dict[int, tuple[str, str, Report | None]] = {}
        self._dense: Report | None = None
        self._info: SweepInfo | None = None
        self._ended = self._ended_before = self._front_size = 0
        self._repetitions: Progress | None = None
        self._started = time.monotonic()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def sweep_started(self, info: SweepInfo) -> None:
        """Say what is going to happen."""
        self._info = info
        self._ended_before = info.finished
        done = f", {info.finished} of them done before" if info.finished else ""
        self._say(f"sweep {info.name}: {info.trials} trials{done}, {info.workers} at a time, in {near(info.folder)}")
        if self._console.is_terminal:
            self._live.start()

    def dense_reported(self, report: Report) -> None:
        """Show the dense training."""
        self._dense = report

    def dense_finished(self, dense: DenseRecord) -> None:
        """Show the dense network's figures; from now on time counts towards the estimate."""
        self._dense = None
        self._started = time.monotonic()
        self._say(
            f"dense network: accuracy {dense.accuracy:.2f} % (test {dense.test_accuracy:.2f} %), "
            f"{dense.params:,} parameters, {dense.flops / 1e6:,.1f} MFLOPs"
        )

    def trial_started(self, number: int, method: str, hyperparameters: dict[str, Any]) -> None:
        """Add a line to the table."""
        self._running[number] = (method, size_of(hyperparameters), None)

    def trial_reported(self, number: int, report: Report) -> None:
        """Update its line; what was measured before retraining stays in it."""
        if number in self._running:
            method, text, earlier = self._running[number]
            known = earlier.metrics if earlier else {}
            self._running[number] = (method, text, replace(report, metrics={**known, **report.metrics}))

    def trial_finished(self, record: TrialRecord, epochs: Sequence[dict[str, float]], folder: Path) -> None:
        """Remove its line, and say how it ended unless it ended in an earlier run."""
        self._ended += 1
        if self._running.pop(record.number, None) is None:
            return
        head = f"[{self._ended}/{self._info.trials if self._info else '?'}] trial {record.number} {record.method}"
        if record.state == "complete":
            tail = (
                f"accuracy {_number(record.accuracy, 2)} %, CR-P {_number(record.cr_p, 1)} %, "
                f"{_number(record.speedup, 2)}x"
            )
        else:
            tail = f"{record.state}: {record.reason}"
        if record.state != "complete" or not self._console.is_terminal:
            self._say(f"{head} {size_of(record.hyperparameters)}: {tail}")

    def front_changed(self, front: Sequence[TrialRecord], hypervolume: float) -> None:
        """Remember the front for the table's head."""
        self._front_size = len(front)

    def repetition_ended(self, progress: Progress) -> None:
        """Show how many of the front's repetitions with other seeds have ended."""
        self._repetitions = progress

    def sweep_stopped(self, outcome: str) -> None:
        """Leave the terminal as it was."""
        self._running.clear()
        self._live.stop()

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        lines: list[Any] = []
        if self._dense is not None:
            accuracy = self._dense.metrics.get("accuracy", 0.0)
            lines.append(_bar("dense training", self._dense.done, self._dense.total, f"{accuracy:.2f} %"))
        elif self._repetitions is not None:
            done, total = self._repetitions
            lines.append(_bar("repetitions", done, total, self._estimate(done, total - done)))
        elif self._info is not None and self._running:
            here, left = self._ended - self._ended_before, self._info.trials - self._ended
            rest = f"{self._front_size} on the front, {self._estimate(here, left)}"
            lines.append(_bar("trials", self._ended, self._info.trials, rest))
            lines.append(self._trials())
        return Group(*lines)

    def _trials(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("trial", "method", "budget", "stage", "", "acc %", "CR-P %", "speed-up"):
            table.add_column(heading, no_wrap=True)
        for number, (method, text, report) in sorted(self._running.items()):
            metrics = report.metrics if report else {}
            table.add_row(
                str(number),
                method,
                text,
                report.stage if report else "starting",
                f"{report.done}/{report.total}" if report else "",
                _number(metrics.get("accuracy"), 2),
                _number(metrics.get("cr_p"), 1),
                _number(metrics.get("speedup"), 2, "x"),
            )
        return table

    def _estimate(self, done: int, left: int) -> str:
        """From what was done since the dense network was ready."""
        if done < 1:
            return "estimating the time left"
        seconds = (time.monotonic() - self._started) / done * left
        return f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _bar(label: str, done: int, total: int, rest: str) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(label, style="bold"), ProgressBar(total=total, completed=done, width=24), f"{done}/{total}", rest)
    return grid


def _tested(row: Row) -> str:
    """The accuracy on the test split; mean and standard deviation over other seeds where they were run."""
    mean, spread = (row["extra"].get(f"test_accuracy_{name}") for name in ("mean", "std"))
    return _number(row["test_accuracy"], 2) if mean is None else f"{mean:.2f}±{spread:.2f}"


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return "-" if value is None else f"{value:,.{digits}f}{unit}"


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def near(path: Path) -> str:
    """A path as short as it can be from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return shown(path)
