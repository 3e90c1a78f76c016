"""Optuna's samplers, and how a space is drawn from with them."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from lrsearch.distributions import Choice, Distribution, IntUniform
from lrsearch.sweep.gain_sampler import ExpectedGainSampler
from lrsearch.sweep.points import METHOD

if TYPE_CHECKING:
    from lrsearch.search_config import Sampler
    from lrsearch.space import Space

START_QUANTILES = (0.5, 0.2, 0.8)
"""Where in its distributions each method is tried before the sampler has learnt anything."""
MEMORY = 400
"""How many trials TPE looks back on, and how many of the best before them at most; its time per trial grows with the
square of their number (96 ms at 2,000)."""


class RecentTPESampler(TPESampler):
    """TPE that looks at the last ``MEMORY`` trials, and at what was best among the others.

    Optuna's own ignores trials that failed, and so asks again and again for budgets that no network reaches.
    """

    def __init__(self, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(seed=seed, multivariate=True, group=True)
        self.best: set[int] = set()
        """Numbers of the trials on the front."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What was varied in the trials looked at."""
        return super().infer_relative_search_space(self._recent(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values drawn together."""
        return super().sample_relative(self._recent(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value drawn for itself."""
        return super().sample_independent(self._recent(study), trial, param_name, param_distribution)

    def _recent(self, study: optuna.Study) -> optuna.Study:
        def get_trials(
            deepcopy: bool = True, states: Sequence[TrialState] = (), use_cache: bool = False
        ) -> list[FrozenTrial]:
            trials = study._get_trials(deepcopy, (*states, TrialState.FAIL) if states else None, use_cache)
            best = [trial for trial in trials[:-MEMORY] if trial.number in self.best]
            recent = best[-MEMORY:] + trials[-MEMORY:]
            return [_as_pruned(trial) if trial.state == TrialState.FAIL else trial for trial in recent]

        recent = copy.copy(study)
        recent._get_trials = get_trials  # type: ignore[method-assign, assignment]
        return recent


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """A failed trial as one that was no good."""
    pruned = copy.copy(trial)
    pruned.state = TrialState.PRUNED
    return pruned


def make_sampler(space: Space, already_asked: int) -> BaseSampler:
    """The sampler of a sweep; a resumed sweep draws on from a seed of its own rather than repeating its first draws."""
    kinds: dict[Sampler, Callable[..., BaseSampler]] = {
        "tpe": RecentTPESampler,
        "nsga2": NSGAIISampler,
        "nsga3": NSGAIIISampler,
        "gp": lambda seed: ExpectedGainSampler(seed, space),
        "random": RandomSampler,
        "grid": RandomSampler,  # every point of a grid is enqueued
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return kinds[space.search.sampler](seed=(space.search.seed * 1_000_003 + already_asked) % 2**32)


def suggest(trial: Trial, space: Space) -> tuple[str, dict[str, Any]]:
    """Draw a method and its hyperparameters; a method's choices exist only in trials of that method."""
    method: str = trial.suggest_categorical(METHOD, list(space.methods))

    def draw(name: str, distribution: Distribution) -> Any:
        name = f"{method}.{name}"
        if isinstance(distribution, Choice):
            return trial.suggest_categorical(name, distribution.values)
        if isinstance(distribution, IntUniform):
            return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
        return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)

    return method, space.draw(method, draw)


def enqueue_points(study: optuna.Study, space: Space) -> None:
    """Enqueue what the space asks for, then where every sweep or a grid starts; again changes nothing."""
    known = {_key(trial.system_attrs.get("fixed_params", {})) for trial in study.get_trials(deepcopy=False)}
    starts: dict[Sampler, Callable[[Space], Iterator[tuple[str, dict[str, Any]]]]] = {
        "grid": grid,
        "gp": scattered_points,
    }
    start = starts.get(space.search.sampler, starting_points)
    for method, values in itertools.chain(space.enqueued(), start(space)):
        point = {METHOD: method} | {f"{method}.{name}": value for name, value in values.items()}
        if _key(point) not in known:
            known.add(_key(point))
            study.enqueue_trial(point)


def starting_points(space: Space) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every method at a few places of its distributions, the methods taking turns; lists begin with their first."""
    for quantile in START_QUANTILES:
        for method in space.methods:
            yield method, _start(space, method, quantile)


def scattered_points(space: Space) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every method at one of these places, as many as there are places at least; which is where follows the seed."""
    methods, places = list(space.methods), len(START_QUANTILES)
    for turn in range(max(len(methods), places)):
        method = methods[turn % len(methods)]
        yield method, _start(space, method, START_QUANTILES[(turn + space.search.seed) % places])


def _start(space: Space, method: str, quantile: float) -> dict[str, Any]:
    choices = space.open_choices(method)
    return {
        name: choice.values[0] if isinstance(choice, Choice) else choice.at(quantile)
        for name, choice in choices.items()
    }


def grid(space: Space) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every combination of listed values, method by method."""
    for method in space.methods:
        choices = space.open_choices(method)
        for values in itertools.product(*(choice.values for choice in choices.values() if isinstance(choice, Choice))):
            yield method, dict(zip(choices, values, strict=True))


def _key(point: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(point.items()))
