"""A sampler that asks for the trial that is expected to add most to the front, of all methods at once.

Optuna's own sampler by Gaussian processes knows no spaces in which one choice decides what others there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from lrsearch.distributions import Choice, Distribution
from lrsearch.front import broken_bound, gain_of, least_gain, pareto_mask
from lrsearch.record import TRAINED, DenseRecord
from lrsearch.sweep.points import METHOD, Tried, Values, coordinates, optuna_distribution, unit_point

if TYPE_CHECKING:
    from lrsearch.space import Space
    from lrsearch.sweep.expected_gain import Kernels

_SPREAD, _NEAR = 64, 64
"""Candidates of each method: spread evenly over its space, and near its best trials."""
_STEP = 0.1
"""Standard deviation of a step from a trial to a candidate near it, as a part of the range."""
_DENSE: dict[str, Callable[[DenseRecord], float]] = {
    "accuracy": lambda dense: dense.accuracy,
    "accuracy_drop": lambda _: 0.0,
}
_LATEST, _BEST = 40, 20
"""How many of each method's trials are looked at, and how many earlier ones of the front; the time of a fit grows
with the cube of their number."""


class ExpectedGainSampler(BaseSampler):
    """Takes, of candidates of all methods, the one of the largest expected gain of hypervolume.

    Attributes:
        dense: what gains are relative to; until it is known, trials are drawn at random.
    """

    def __init__(self, seed: int, space: Space) -> None:
        self.dense: DenseRecord | None = None
        self._space = space
        self._choices = {method: space.open_choices(method) for method in space.methods}
        self._generator = np.random.default_rng(seed)
        self._random = RandomSampler(seed)
        self._kernels: Kernels = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The method and the open hyperparameters of all methods."""
        own = {
            f"{m}.{name}": optuna_distribution(c) for m, choices in self._choices.items() for name, c in choices.items()
        }
        return {METHOD: CategoricalDistribution(tuple(self._choices)), **own}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A method and its hyperparameters; nothing before a trial has ended with a network."""
        if self.dense is None:
            return {}
        trials = [each for each in study.get_trials(deepcopy=False) if each.number != trial.number]
        tried = {method: self._tried(method, own, self.dense) for method, own in self._look_at(trials).items()}
        if not any(each.gains for each in tried.values()):
            return {}
        return self._most_promising(tried, self.dense)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At random: what an enqueued trial leaves open, and the first trials."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _look_at(self, trials: Sequence[FrozenTrial]) -> dict[str, list[FrozenTrial]]:
        """Of each method the trials on the front and the latest, as far as their hyperparameters are known."""
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        mask = pareto_mask([trial.values for trial in complete], list(self._space.objectives.values()))
        best = {trial.number for trial, is_best in zip(complete, mask, strict=True) if is_best}
        looked_at = {}
        for method, choices in self._choices.items():
            names = {f"{method}.{name}" for name in choices}
            own = [t for t in trials if t.params.get(METHOD) == method and names <= t.params.keys()]
            earlier = [trial for trial in own[:-_LATEST] if trial.number in best]
            looked_at[method] = earlier[-_BEST:] + own[-_LATEST:]
        return looked_at

    def _tried(self, method: str, trials: Sequence[FrozenTrial], dense: DenseRecord) -> Tried:
        """What is known of a method's trials."""
        tried = Tried()
        bounds = {name: bound for name, bound in self._space.constraints.items() if name not in TRAINED}
        for trial in trials:
            values = {name: trial.params[f"{method}.{name}"] for name in self._choices[method]}
            point, metrics = unit_point(self._choices[method], values), trial.user_attrs.get("metrics") or {}
            if trial.state == TrialState.RUNNING:
                tried.running.append(point)
                continue
            ended = trial.state == TrialState.COMPLETE and broken_bound(metrics, bounds) is None
            (tried.ended if ended else tried.lost).append(point)
            if self._knows_gains(metrics):
                tried.values.append(values)
                tried.points.append(point)
                tried.gains.append([gain_of(name, metrics[name], dense) for name in self._space.objectives])
                tried.sizes.append(math.log2(max(metrics["params"], 1) / dense.params))
                tried.stopped.append(trial.state != TrialState.COMPLETE)
        return tried

    def _knows_gains(self, metrics: Mapping[str, float]) -> bool:
        return all(math.isfinite(metrics.get(name, math.nan)) for name in (*self._space.objectives, "params"))

    def _most_promising(self, tried: Mapping[str, Tried], dense: DenseRecord) -> dict[str, Any]:
        from lrsearch.sweep.expected_gain import ExpectedGain  # imports scikit-learn, which reading results need not

        objectives = self._space.objectives
        least = [least_gain(name, self._space.constraints, dense) for name in objectives]
        known_to_reach = [gain_of(name, _DENSE[name](dense), dense) if name in TRAINED else None for name in objectives]
        expected = ExpectedGain(tried, least, known_to_reach, self._kernels)
        best: tuple[float, str, Values] | None = None
        for method, choices in self._choices.items():
            good = [tried[method].values[i] for i in expected.on_front(method)]
            candidates = [*self._spread(choices), *self._near(choices, good)]
            points = np.array([unit_point(choices, values) for values in candidates]).reshape(len(candidates), -1)
            gains = expected.of(method, points)
            first = int(gains.argmax())
            if best is None or gains[first] > best[0]:
                best = float(gains[first]), method, candidates[first]
        assert best is not None  # noqa: S101 - a space has methods
        return {METHOD: best[1], **{f"{best[1]}.{name}": value for name, value in best[2].items()}}

    def _spread(self, choices: Mapping[str, Distribution]) -> list[Values]:
        from scipy.stats import qmc

        if not choices:
            return [{}]
        rows = qmc.Sobol(len(choices), rng=self._generator).random(_SPREAD)
        return [{name: c.at(float(part)) for (name, c), part in zip(choices.items(), row, strict=True)} for row in rows]

    def _near(self, choices: Mapping[str, Distribution], good: Sequence[Values]) -> list[Values]:
        if not choices or not good:
            return []
        bases = [good[i] for i in self._generator.integers(len(good), size=_NEAR)]
        return [{name: self._step(choice, base[name]) for name, choice in choices.items()} for base in bases]

    def _step(self, choice: Distribution, value: Any) -> Any:
        if isinstance(choice, Choice):
            stays = self._generator.random() > _STEP
            return value if stays else choice.values[self._generator.integers(len(choice.values))]
        (place,) = coordinates(choice, value)
        return choice.at(float(np.clip(place + _STEP * self._generator.standard_normal(), 0, 1)))
