"""What MLflow is told of a sweep and its trials, as plain dictionaries."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lrsearch.distributions import is_distribution
from lrsearch.errors import hide_passwords
from lrsearch.observer import SweepInfo
from lrsearch.record import DIRECTIONS, DenseRecord, Report, TrialRecord
from lrsearch.tracking.links import RunLinks
from lrsearch.tracking.panels import answers
from lrsearch.tracking.words import join_words, named

STATUS = {"running": "RUNNING", "complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
"""State of a trial -> status of its run; a pruned trial did all that was asked of it."""

_QUESTION = """\
**Which low-rank networks trade {objectives} best?**
"""
_ANSWER = """
| {page} | trial | accuracy | CR-P | CR-F | speed-up |
|---|---|---|---|---|---|
{rows}
"""
_DENSE = """
| dense network | |
|---|---|
| accuracy (validation, test) | {accuracy:.2f} %, {test_accuracy:.2f} % |
| parameters | {params:,} |
| FLOPs per image | {flops:,} |
| images/s | {throughput:,.0f} |
"""
_TRIALS = """
Each child run is one trial: compress `{model}`, trained on `{data}`, with one of {methods}; retrain; \
measure. {trials} trials in all{constraints}. Its `trial.html` shows its training and each layer's ranks.
"""
_READING = """
**How to read this sweep**
- Artifacts: `front/pareto.html` shows every trial beside the dense network, `front/front.csv` is the front as a \
table, `front/pareto.png` a picture for slides.
- The front as runs: filter with `tags."lrsearch.pareto" = 'true'` and sort by `accuracy`.
- Fewer FLOPs but not faster: `tags."lrsearch.slower_than_dense" = 'true'`.
- `hypervolume` and `front_size` over the number of finished trials say whether more trials still help.
- Hyperparameters are metrics too, to be compared: `metrics."hp.budget.params" < 0.5`.
- `accuracy` is of the validation split, which the search sees; `test_accuracy`, of the front alone, is not.
"""


def describe(
    info: SweepInfo, dense: DenseRecord | None, records: Sequence[TrialRecord] = (), links: RunLinks | None = None
) -> str:
    """The parent run's description in Markdown: the question, the answer so far, how to read the rest."""
    bounds = [
        f"`{name}` {'≤' if DIRECTIONS.get(name) == 'min' else '≥'} {bound}"
        for name, bound in (info.space.get("constraints") or {}).items()
    ]
    question = _QUESTION.format(
        objectives=join_words([f"`{name}` ({way})" for name, way in info.objectives.items()], "and")
    )
    page = _linked("the front so far", links.parent("front/pareto.html") if links else None)
    found = answers(info.objectives, records)
    rows = "\n".join(_answer(asked, record, links) for asked, record in found.items())
    answer = _ANSWER.format(page=page, rows=rows) if rows else ""
    trials = _TRIALS.format(
        model=named(info.space.get("model")),
        data=named(info.space.get("data")),
        methods=join_words([f"`{name}`" for name in info.space.get("methods") or {}], "or"),
        trials=info.trials,
        constraints=f"; on the front only with {join_words(bounds, 'and')}" if bounds else "",
    )
    return question + answer + (_DENSE.format(**vars(dense)) if dense else "") + trials + _READING


def _linked(text: str, address: str | None) -> str:
    return f"[{text}]({address})" if address else text


def _answer(question: str, record: TrialRecord, links: RunLinks | None) -> str:
    trial = _linked(f"{record.number}, `{record.method}`", links.trial(record.number) if links else None)
    reductions = f"{record.cr_p or 0:.1f} % | {record.cr_f or 0:.1f} %"
    return f"| {question} | {trial} | {record.accuracy or 0:.2f} % | {reductions} | {record.speedup or 0:.2f}x |"


def parameters(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested values as MLflow parameters: keys joined by dots, distributions in words; no None, no password."""
    return {
        key: hide_passwords(value if isinstance(value, str) else json.dumps(value)) for key, value in _leaves(values)
    }


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The numeric hyperparameters as metrics, because MLflow's filters compare parameters as text."""
    return {
        f"hp.{key}": float(value)
        for key, value in _leaves(values)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def stage_metrics(report: Report) -> tuple[dict[str, float], int]:
    """A report's metrics, named ``<stage>/<metric>``, and their step; the last are the result's and have no stage."""
    if report.stage == "done":
        return {}, report.done
    if report.stage == "retrain":
        return epoch_metrics({"epoch": report.done, **report.metrics})
    return {f"{report.stage}/{name}": float(value) for name, value in report.metrics.items()}, report.done


def epoch_metrics(epoch: Mapping[str, float]) -> tuple[dict[str, float], int]:
    """An epoch of a trial's history as metrics ``retrain/<metric>``, and its step."""
    return {f"retrain/{name}": float(v) for name, v in epoch.items() if name != "epoch"}, int(epoch["epoch"])


def result_metrics(record: TrialRecord) -> dict[str, float]:
    """What a finished trial measured, under the names of the JSON output."""
    known = ((name, getattr(record, name)) for name in (*DIRECTIONS, "test_accuracy"))
    measured = {name: float(value) for name, value in (*known, *record.extra.items()) if value is not None}
    return {name: value for name, value in measured.items() if not math.isnan(value)}


def dense_metrics(dense: DenseRecord) -> dict[str, float]:
    """The dense network's figures as metrics of the parent run."""
    return {f"dense/{name}": float(value) for name, value in vars(dense).items() if isinstance(value, (int, float))}


def result_tags(record: TrialRecord) -> dict[str, str]:
    """A finished trial's tags, except the front's."""
    tags = {"lrsearch.method": record.method, "lrsearch.state": record.state}
    if "slower_than_dense" in record.extra:
        tags["lrsearch.slower_than_dense"] = "true" if record.extra["slower_than_dense"] else "false"
    return tags | ({"lrsearch.reason": record.reason} if record.reason else {})


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if is_distribution(value):
            kind, arguments = next(iter(value.items()))
            yield key, f"{kind} {json.dumps(arguments)}"
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{key}.")
        elif value is not None:
            yield key, value
