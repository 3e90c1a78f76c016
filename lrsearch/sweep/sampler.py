"""Optuna's samplers, and how a space is drawn from with them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import Trial

from lrsearch.distributions import Choice, Distribution, IntUniform

if TYPE_CHECKING:
    from lrsearch.space import Sampler, Space

METHOD = "method"
START_QUANTILES = (0.5, 0.2, 0.8)
"""Where in its distributions each method is tried before the sampler has learnt anything."""


def make_sampler(name: Sampler, seed: int, already_asked: int) -> BaseSampler:
    """The sampler of a sweep; a resumed sweep draws on from a seed of its own rather than repeating its first draws."""
    seed = (seed * 1_000_003 + already_asked) % 2**32
    if name == "nsga2":
        return NSGAIISampler(seed=seed)
    if name == "gp":
        return GPSampler(seed=seed)
    if name == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True)


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


def enqueue_starting_points(study: optuna.Study, space: Space) -> None:
    """Enqueue every method at a few places of its distributions, the methods taking turns; again changes nothing."""
    for quantile in START_QUANTILES:
        for method in space.methods:
            choices = space.open_choices(method)
            values = {f"{method}.{name}": at_quantile(choice, quantile) for name, choice in choices.items()}
            study.enqueue_trial({METHOD: method} | values, skip_if_exists=True)


def at_quantile(distribution: Distribution, quantile: float) -> Any:
    """The value of a distribution below which a fraction ``quantile`` of it lies; a choice's first value."""
    if isinstance(distribution, Choice):
        return distribution.values[0]
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** quantile if distribution.log else low + (high - low) * quantile
    return round(value) if isinstance(distribution, IntUniform) else value
