"""Trials as Optuna names what they vary, and as points of a unit cube."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lrsearch.distributions import Choice, Distribution, IntUniform

METHOD = "method"
"""What Optuna knows the choice of the method by; a hyperparameter is known by its method, a dot and its name."""
Values: TypeAlias = dict[str, Any]
"""Name -> value of the hyperparameters of one method that are open."""


@dataclass
class Tried:
    """What is known of the trials of one method, as points of the unit cube.

    Attributes:
        values: the hyperparameters of trials with a network, of which gains and sizes are known.
        points: the same as points.
        gains: what they gained in each objective.
        sizes: log2 of the fraction of parameters that they keep.
        stopped: whether their training was stopped before its end.
        ended: of trials that trained to their end and keep all bounds that are known before training.
        lost: of trials that did not.
        running: of trials that have not ended.
    """

    values: list[Values] = field(default_factory=list)
    points: list[list[float]] = field(default_factory=list)
    gains: list[list[float]] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    stopped: list[bool] = field(default_factory=list)
    ended: list[list[float]] = field(default_factory=list)
    lost: list[list[float]] = field(default_factory=list)
    running: list[list[float]] = field(default_factory=list)


def unit_point(choices: Mapping[str, Distribution], values: Values) -> list[float]:
    """A point of the unit cube: the coordinates of all hyperparameters, in their order; at least one."""
    return [place for name, choice in choices.items() for place in coordinates(choice, values[name])] or [0.0]


def coordinates(choice: Distribution, value: Any) -> list[float]:
    """Where a value lies, from 0 to 1; of a choice, 1 for the chosen of its values and 0 for the others."""
    if isinstance(choice, Choice):
        return [float(value == each) for each in choice.values]
    if choice.high == choice.low:
        return [0.0]
    if choice.log:
        return [math.log(value / choice.low) / math.log(choice.high / choice.low)]
    return [(value - choice.low) / (choice.high - choice.low)]


def optuna_distribution(choice: Distribution) -> BaseDistribution:
    """A distribution as Optuna spells it."""
    if isinstance(choice, Choice):
        return CategoricalDistribution(choice.values)
    if isinstance(choice, IntUniform):
        return IntDistribution(choice.low, choice.high, log=choice.log)
    return FloatDistribution(choice.low, choice.high, log=choice.log)
