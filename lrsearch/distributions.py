"""The distributions a hyperparameter can be drawn from: plain data, known to methods, spaces and samplers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard


@dataclass(frozen=True)
class Uniform:
    """A real number in [low, high], uniformly or, with ``log``, uniformly in its logarithm."""

    low: float
    high: float
    log: bool = False

    def contains(self, value: object) -> bool:
        """Whether it can be drawn."""
        return _is_number(value) and self.low <= value <= self.high

    def at(self, quantile: float) -> float:
        """The value below which a fraction ``quantile`` of it lies."""
        return min(max(_between(self.low, self.high, self.log, quantile), self.low), self.high)

    def __str__(self) -> str:
        return f"{'loguniform' if self.log else 'uniform'} [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class IntUniform:
    """A whole number in [low, high], uniformly or, with ``log``, uniformly in its logarithm."""

    low: int
    high: int
    log: bool = False

    def contains(self, value: object) -> bool:
        """Whether it can be drawn."""
        return _is_number(value) and value == int(value) and self.low <= value <= self.high

    def at(self, quantile: float) -> int:
        """The value below which a fraction ``quantile`` of it lies."""
        return round(_between(self.low, self.high, self.log, quantile))

    def __str__(self) -> str:
        return f"{'logint' if self.log else 'int'} [{self.low}, {self.high}]"


@dataclass(frozen=True)
class Choice:
    """One of the listed values (numbers, strings, booleans)."""

    values: tuple[Any, ...]

    def contains(self, value: object) -> bool:
        """Whether it can be drawn."""
        return value in self.values

    def at(self, quantile: float) -> Any:
        """The value that a fraction ``quantile`` of those listed come before."""
        return self.values[min(int(quantile * len(self.values)), len(self.values) - 1)]

    def __str__(self) -> str:
        return f"choice {list(self.values)}"


Distribution: TypeAlias = Uniform | IntUniform | Choice

SPELLINGS = {
    "uniform": "[low, high]",
    "loguniform": "[low, high]",
    "int": "[low, high]",
    "logint": "[low, high]",
    "choice": "[value, value, ...]",
}


def is_distribution(value: object) -> bool:
    """Whether a value of a space file spells a distribution: a mapping whose one key is a spelling."""
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in SPELLINGS


def parse_distribution(value: Mapping[str, Any]) -> Distribution:
    """Read the spelling of a space file, such as ``{loguniform: [1.5, 10]}``.

    Raises:
        ValueError: the arguments do not fit the distribution; the text says what was expected.
    """
    kind, arguments = next(iter(value.items()))
    if kind == "choice":
        if not isinstance(arguments, list) or not arguments:
            raise ValueError(f"choice expects a list of at least one value, got {arguments!r}")
        return Choice(tuple(arguments))
    is_pair = isinstance(arguments, list) and len(arguments) == 2
    if not is_pair or not all(_is_number(a) for a in arguments):
        raise ValueError(f"{kind} expects two numbers [low, high], got {arguments!r}")
    low, high = arguments
    log = kind.startswith("log")
    if low > high or (log and low <= 0):
        raise ValueError(f"{kind} expects {'0 < ' if log else ''}low <= high, got [{low}, {high}]")
    if kind.endswith("int"):
        if int(low) != low or int(high) != high:
            raise ValueError(f"{kind} expects whole numbers, got [{low}, {high}]")
        return IntUniform(int(low), int(high), log)
    return Uniform(float(low), float(high), log)


def _between(low: float, high: float, log: bool, quantile: float) -> float:
    return low * (high / low) ** quantile if log else low + (high - low) * quantile


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
