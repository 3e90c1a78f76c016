"""What a space file says of one method: values and distributions, which may be nested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lrsearch.distributions import Choice, Distribution, is_distribution, parse_distribution
from lrsearch.methods import load_method, parse_hyperparameters
from lrsearch.methods.base import Search

Draw = Callable[[str, Distribution], Any]
"""Draws a value: (dotted name of the hyperparameter, its distribution) -> value."""


def method_entries(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a method with distributions parsed; the method's own where none are given."""
    if given:
        return {key: _parse(value) for key, value in given.items()}
    fields = load_method(method).Hyperparameters.model_fields
    return {
        name: search.distribution
        for name, info in fields.items()
        for search in info.metadata
        if isinstance(search, Search)
    }


def _parse(value: Any) -> Any:
    if is_distribution(value):
        return parse_distribution(value)
    if isinstance(value, Mapping):
        return {key: _parse(inner) for key, inner in value.items()}
    return value


def resolve(entries: Mapping[str, Any], draw: Draw, prefix: str = "") -> dict[str, Any]:
    """Values as they are and distributions drawn, under dotted names that begin with ``prefix``."""
    values = {}
    for key, value in entries.items():
        if isinstance(value, Distribution):
            values[key] = draw(prefix + key, value)
        elif isinstance(value, Mapping):
            values[key] = resolve(value, draw, f"{prefix}{key}.")
        else:
            values[key] = value
    return values


def check_method(method: str, given: Mapping[str, Any]) -> None:
    """Make sure that every corner of a method's distributions, and every choice, is valid.

    Raises:
        LrsearchError: the method is not known, or does not take a value.
    """
    load_method(method)
    parsed = method_entries(method, given)
    for corner in (lowest, _highest):
        parse_hyperparameters(method, resolve(parsed, corner))
    for name, distribution in flatten(parsed).items():
        if isinstance(distribution, Choice):
            for value in distribution.values:
                parse_hyperparameters(method, resolve(parsed, partial(_lowest_but, name, value)))


def _lowest_but(chosen: str, value: Any, key: str, distribution: Distribution) -> Any:
    return value if key == chosen else lowest(key, distribution)


def lowest(_: str, distribution: Distribution) -> Any:
    """Draw the lower end, or the first choice."""
    return distribution.values[0] if isinstance(distribution, Choice) else distribution.low


def _highest(_: str, distribution: Distribution) -> Any:
    return distribution.values[-1] if isinstance(distribution, Choice) else distribution.high


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of nested keys."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            flat |= flatten(inner, f"{prefix}{key}.")
        else:
            flat[prefix + key] = inner
    return flat
