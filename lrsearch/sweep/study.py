"""The Optuna study of a sweep: the one durable truth about its trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from lrsearch.front import mark_front
from lrsearch.record import DIRECTIONS, DenseRecord, State, TrialRecord
from lrsearch.sweep.gain_sampler import ExpectedGainSampler
from lrsearch.sweep.patience import patient
from lrsearch.sweep.rungs import Verdict
from lrsearch.sweep.sampler import RecentTPESampler, enqueue_points, make_sampler, suggest
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study_store import has_study, mend_journal, open_storage

if TYPE_CHECKING:
    from lrsearch.space import Space  # imports PyTorch, which reading results does not need
    from lrsearch.sweep.importance import Importances  # imports scikit-learn

optuna.logging.set_verbosity(optuna.logging.WARNING)

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
}
_ENDS = {"failed": TrialState.FAIL, "pruned": TrialState.PRUNED}


_RUNG = "rung:"
_PROMOTED = "promoted:"


@dataclass(frozen=True)
class Asked:
    """A trial as the study has it: what is to be run."""

    number: int
    method: str
    hyperparameters: dict[str, Any]
    epochs: int
    """Of retraining; those of the space when the trial was asked for."""
    seed: int
    """Of every random choice; one that takes an earlier trial's training further has that trial's."""
    continues: int | None = None
    """The trial whose last epoch it goes on from."""


@dataclass(frozen=True)
class RungRecord:
    """What is remembered of a trial that reached a rung."""

    number: int
    epochs: int
    rung: int
    metrics: dict[str, float]
    verdict: Verdict


class SweepStudy:
    """What was tried, what came of it, and what to try next."""

    def __init__(self, store: SweepStore, space: Space) -> None:
        """Open the study of a sweep, creating it with its starting points if there is none.

        Only the holder of the sweep's lock may do this: it removes what a killed driver left half-written.

        Raises:
            LrsearchError: the journal is damaged, or the database cannot be used.
        """
        mend_journal(store)
        self._space = space
        self._handed_out: set[int] = set()
        self._asking = False
        storage, name = open_storage(store)
        directions = [
            StudyDirection.MAXIMIZE if d == "max" else StudyDirection.MINIMIZE for d in space.objectives.values()
        ]
        self._study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        asked = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = make_sampler(space, asked)
        enqueue_points(self._study, space)
        self._promote_front()

    @patient
    def ask(self) -> Asked:
        """Start a new trial, or hand out the one that was started just when the database went away."""
        started = self._started() if self._asking else None
        self._asking = True
        asked = self._plan(started or self._study.ask())
        self._handed_out.add(asked.number)
        self._asking = False
        return asked

    def _started(self) -> Trial | None:
        """The trial that was started when no answer came."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return next((self._trial(frozen) for frozen in running if frozen.number not in self._handed_out), None)

    @patient
    def unfinished(self) -> list[Asked]:
        """Trials that an earlier driver started and nobody finished: to be continued under the same number."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        found = [self._plan(self._trial(frozen)) for frozen in running]
        self._handed_out |= {asked.number for asked in found}
        return found

    def look_back_on(self, numbers: set[int]) -> None:
        """Tell the sampler which trials to learn from however long ago they ended."""
        if isinstance(self._study.sampler, RecentTPESampler):
            self._study.sampler.best = numbers

    def compare_with(self, dense: DenseRecord) -> None:
        """Tell the sampler what gains are relative to."""
        if isinstance(self._study.sampler, ExpectedGainSampler):
            self._study.sampler.dense = dense

    @patient
    def asked(self, number: int) -> Asked:
        """What a trial was to do."""
        return self._asked(number, self._frozen(number).user_attrs)

    @patient
    def remember_rung(self, record: RungRecord) -> None:
        """Keep what a verdict was based on, and the verdict, with the trial."""
        content = {"epochs": record.epochs, "metrics": record.metrics, "verdict": asdict(record.verdict)}
        self._trial(self._frozen(record.number)).set_user_attr(f"{_RUNG}{record.rung}", content)

    @patient
    def rung_records(self) -> list[RungRecord]:
        """Every trial that reached a rung, once per rung."""
        return [
            RungRecord(
                frozen.number,
                content["epochs"],
                int(name.removeprefix(_RUNG)),
                content["metrics"],
                Verdict(**content["verdict"]),
            )
            for frozen in self._study.get_trials(deepcopy=False)
            for name, content in frozen.user_attrs.items()
            if name.startswith(_RUNG)
        ]

    @patient
    def tell(self, number: int, result: Mapping[str, Any]) -> TrialRecord:
        """Record how a trial ended, once; ``result`` is what the trial left in ``result.json``."""
        frozen = self._frozen(number)
        if frozen.state == TrialState.RUNNING:
            trial = self._trial(frozen)
            trial.set_user_attr("metrics", result["metrics"])
            trial.set_user_attr("reason", result["reason"])
            self._set_constraints(trial, result["metrics"])
            if result["state"] == "complete":
                values = [result["metrics"][metric] for metric in self._space.objectives]
                self._study.tell(number, values, state=TrialState.COMPLETE)
            else:
                self._study.tell(number, state=_ENDS[result["state"]])
        return _record(self._frozen(number), self._space.search.seed)

    @patient
    def finished(self) -> list[TrialRecord]:
        """Every trial that has ended, in order of number."""
        records = _records(self._study.get_trials(deepcopy=False), self._space.search.seed)
        return [record for record in records if record.state != "running"]

    def importances(self) -> Importances:
        """How much each hyperparameter matters to each objective, as far as can be said."""
        from lrsearch.sweep.importance import importances

        return importances(self._study.get_trials(deepcopy=False), self._space.objectives)

    @patient
    def promoted(self) -> int:
        """How many trials take an earlier one's training further."""
        return sum("continues" in trial.user_attrs for trial in self._study.get_trials(deepcopy=False))

    def _set_constraints(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a driver killed between this and tell has set them already
            for metric, bound in self._space.constraints.items():
                if metric in metrics:
                    excess = metrics[metric] - bound
                    trial.set_constraint(metric, excess if DIRECTIONS[metric] == "min" else -excess)

    def _plan(self, trial: Trial) -> Asked:
        """What a trial is to do, decided now unless it was before."""
        plan = trial.user_attrs
        if "epochs" not in plan:  # a driver was killed while it asked
            method, hyperparameters = suggest(trial, self._space)
            trial.set_user_attr("method", method)
            trial.set_user_attr("hyperparameters", hyperparameters)
            trial.set_user_attr("epochs", self._space.retraining().epochs)
            plan = trial.user_attrs
        return self._asked(trial.number, plan)

    def _asked(self, number: int, plan: Mapping[str, Any]) -> Asked:
        seed = _seed(self._space.search.seed, number, plan)
        return Asked(number, plan["method"], plan["hyperparameters"], plan["epochs"], seed, plan.get("continues"))

    def _promote_front(self) -> None:
        """Add a trial for each member of the front that trained for fewer epochs than the space now asks for.

        Who they are is written down before the first is added: killed in between, the next driver adds the rest. They
        are added as running, so that they are taken up like all that an earlier driver left unfinished.
        """
        epochs, trials = self._space.retraining().epochs, self._study.get_trials(deepcopy=False)
        chosen = self._study.user_attrs.get(f"{_PROMOTED}{epochs}")
        if chosen is None:
            records = _records(trials, self._space.search.seed)
            mark_front(records, self._space.objectives, self._space.constraints)
            chosen = [record.number for record in records if record.pareto and (record.epochs or 0) < epochs]
            if not chosen:
                return
            self._study.set_user_attr(f"{_PROMOTED}{epochs}", chosen)
        added = {trial.user_attrs.get("continues") for trial in trials if trial.user_attrs.get("epochs") == epochs}
        for frozen in (trials[number] for number in chosen if number not in added):
            plan = {name: frozen.user_attrs[name] for name in ("method", "hyperparameters")}
            origin = frozen.user_attrs.get("origin", frozen.number)
            plan |= {"epochs": epochs, "origin": origin, "continues": frozen.number}
            self._study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=frozen.params,
                    distributions=frozen.distributions,
                    user_attrs=plan,
                )
            )

    def _frozen(self, number: int) -> FrozenTrial:
        """A trial as it is now, however many others there are."""
        storage = self._study._storage
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number))

    def _trial(self, frozen: FrozenTrial) -> Trial:
        return Trial(self._study, frozen._trial_id)


def read_records(store: SweepStore) -> list[TrialRecord]:
    """Every trial of a sweep that was started; reads only, so it may run beside the driver.

    Raises:
        LrsearchError: the study file is missing or damaged.
    """
    return _records(_read_trials(store), store.raw_space()["search"]["seed"])


def read_importances(store: SweepStore) -> Importances:
    """How much each hyperparameter of a sweep matters to each of its objectives; reads only.

    Raises:
        LrsearchError: the study file is missing or damaged.
    """
    from lrsearch.sweep.importance import importances

    return importances(_read_trials(store), store.raw_space()["objectives"])


def _read_trials(store: SweepStore) -> list[FrozenTrial]:
    if not has_study(store):
        return []
    storage, name = open_storage(store)
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:  # the driver has not created it yet
        return []
    return study.get_trials(deepcopy=False)


def _records(trials: Sequence[FrozenTrial], search_seed: int) -> list[TrialRecord]:
    return [_record(trial, search_seed) for trial in trials if trial.state in _STATES and "method" in trial.user_attrs]


def _record(trial: FrozenTrial, search_seed: int) -> TrialRecord:
    attributes = trial.user_attrs
    metrics = attributes.get("metrics") or {}
    known: dict[str, Any] = {name: metrics.get(name) for name in DIRECTIONS}
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        method=attributes["method"],
        hyperparameters=attributes["hyperparameters"],
        reason=attributes.get("reason"),
        epochs=attributes.get("epochs"),
        continues=attributes.get("continues"),
        seed=_seed(search_seed, trial.number, attributes),
        extra={name: value for name, value in metrics.items() if name not in DIRECTIONS},
        **known,
    )


def _seed(search_seed: int, number: int, plan: Mapping[str, Any]) -> int:
    """A trial's seed, from the sweep's and the number of the trial whose training it is."""
    return search_seed * 100_003 + int(plan.get("origin", number))
