"""What a page tells of a sweep beside the pictures of its front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lrsearch.files import read_json
from lrsearch.observer import SweepInfo
from lrsearch.record import DIRECTIONS, IMPORTANCE, DenseRecord, TrialRecord
from lrsearch.tracking.course import Course
from lrsearch.tracking.layer_profile import Entries, read_layers
from lrsearch.tracking.links import RunLinks
from lrsearch.tracking.words import join_words, named

Importances = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Story:
    """How a sweep went.

    Attributes:
        question: what was asked, in plain words.
        trials: every complete trial.
        hypervolumes: of the front, after each trial that ended.
        importances: method, or all of them -> objective -> hyperparameter -> share.
        layers: number of a complete trial -> what became of each layer, where that is known.
        links: the trials' runs in MLflow, where there are any.
    """

    question: str
    trials: Sequence[TrialRecord]
    hypervolumes: Sequence[float]
    importances: Importances = field(default_factory=dict)
    layers: Mapping[int, Entries] = field(default_factory=dict)
    links: RunLinks | None = None


def tell_story(
    info: SweepInfo,
    dense: DenseRecord,
    records: Sequence[TrialRecord],
    links: RunLinks | None = None,
    course: Course | None = None,
    importances: Importances | None = None,
) -> Story:
    """Gather what is known of a sweep.

    Args:
        info: names the sweep and its folder.
        dense: the reference.
        records: every trial that ended, in order, ``pareto`` set.
        links: to the trials' runs.
        course: one that has taken in some of the records already.
        importances: of the hyperparameters; by default those that the sweep left in its folder.
    """
    course = course or start_course(info, dense)
    complete = [record for record in records if record.state == "complete"]
    layers = {record.number: read_layers(info.folder / "trials" / str(record.number)) for record in complete}
    if importances is None:
        importances = read_json(info.folder / "front" / IMPORTANCE, "delete it and resume the sweep") or {}
    return Story(_question(info), complete, course.extend(records), importances, layers, links)


def start_course(info: SweepInfo, dense: DenseRecord) -> Course:
    """The course of a sweep's front before its first trial."""
    return Course(info.objectives, info.space.get("constraints") or {}, dense)


def _question(info: SweepInfo) -> str:
    goals = [f"{_NAMES.get(name, name)} ({_WISHES[way]})" for name, way in info.objectives.items()]
    bounds = [
        f"{_NAMES.get(name, name)} {'at most' if DIRECTIONS.get(name) == 'min' else 'at least'} {bound:g}"
        for name, bound in (info.space.get("constraints") or {}).items()
    ]
    methods = list(info.space.get("methods") or {})
    return (
        f"Each trial compressed {named(info.space.get('model'))}, trained on {named(info.space.get('data'))}, with "
        f"{join_words(methods, 'or')}, retrained the smaller network and measured it beside the dense one. "
        f"A network is on the front when no other is at least as good in {join_words(goals, 'and')} and better in one"
        f"{'; allowed are only networks with ' + join_words(bounds, 'and') if bounds else ''}."
    )


_WISHES = {"max": "more is better", "min": "less is better"}
_NAMES = {"accuracy_drop": "loss of accuracy", "params": "parameters", "flops": "FLOPs", "cr_p": "CR-P", "cr_f": "CR-F"}
