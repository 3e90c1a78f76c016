"""Things a user calls by name: the nearest valid name, import paths, keyword arguments from a file."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lrsearch.errors import LrsearchError

_SHOWN_NAMES = 12


def unknown_name(key: str, value: object, names: Iterable[str]) -> LrsearchError:
    """The error for a ``value`` under ``key`` that is none of ``names``, with the nearest of them."""
    known = list(names)
    nearest = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    more = f" and {len(known) - _SHOWN_NAMES} more" if len(known) > _SHOWN_NAMES else ""
    expected = ", ".join(known[:_SHOWN_NAMES]) + more
    return LrsearchError(f"{key}: {value!r} is not known; {hint}expected one of {expected}")


def import_callable(key: str, path: str) -> Callable[..., Any]:
    """The callable at ``path``, written ``package.module:callable``.

    The working directory joins the end of ``sys.path``, so that a file in it is found also when the program
    was started through its console script.

    Raises:
        LrsearchError: there is no such module, or no such callable in it.
    """
    module_name, _, attribute = path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:  # the module is the user's: it may fail in any way
        raise LrsearchError(
            f"{key}: {path!r} cannot be imported ({error}); expected package.module:callable"
        ) from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise LrsearchError(f"{key}: module {module_name!r} has no callable {attribute!r}")
    return found


def call_with(function: Callable[..., Any], arguments: Mapping[str, Any], *, key: str, name: str) -> Any:
    """Call ``function`` with keyword arguments that a user wrote under ``key`` beside ``name``.

    Raises:
        LrsearchError: an argument is unknown, missing, or refused by the function.
    """
    _check_arguments(function, arguments, key, name)
    try:
        return function(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        given = ", ".join(f"{argument}={value!r}" for argument, value in arguments.items()) or "no arguments"
        reason = " ".join(str(error).split())
        raise LrsearchError(f"{key} {name} cannot be made with {given}: {reason}") from error


def _check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any], key: str, name: str) -> None:
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some builtins do not say what they take
        return
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for argument in arguments:
        if argument not in parameters and not open_ended:
            raise unknown_name(f"key of {key} {name}", argument, parameters)
    for parameter in parameters.values():
        variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.default is parameter.empty and not variable and parameter.name not in arguments:
            raise LrsearchError(f"{key}.{parameter.name} is missing: {name} needs it")
