"""The registry of methods: one module of this package each, exporting ``METHOD``, and entry points of other packages.

Packages in here hold what methods share.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from lrsearch.distributions import SPELLINGS, is_distribution
from lrsearch.errors import LrsearchError
from lrsearch.names import unknown_name

if TYPE_CHECKING:
    from lrsearch.methods.base import Hyperparameters, Method  # imports PyTorch, which names do not need

ENTRY_POINTS = "lrsearch.methods"
_NO_METHOD = "base"


def method_names() -> list[str]:
    """All methods, this package's own and those that installed packages add."""
    return sorted({*_own(), *_added()})


def load_method(name: str) -> Method:
    """The method of a name; its module is imported now.

    Raises:
        LrsearchError: there is none of that name, or an installed package's cannot be imported.
    """
    if name in _own():
        own: Method = importlib.import_module(f"{__name__}.{name}").METHOD
        return own
    added = _added()
    if name not in added:
        raise unknown_name("method", name, method_names())
    try:
        method: Method = added[name].load()
    except (ImportError, AttributeError) as error:
        raise LrsearchError(f"method: {name!r} of {added[name].value} cannot be loaded: {error}") from error
    return method


def parse_hyperparameters(method: str, values: Mapping[str, Any]) -> Hyperparameters:
    """Validate the hyperparameters of a method.

    Raises:
        LrsearchError: the method is unknown, or names the first wrong key, its value and what was expected.
    """
    kind = load_method(method).Hyperparameters
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise _sentence(method, kind, error) from error


def _own() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg and module.name != _NO_METHOD]


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _sentence(method: str, kind: type[BaseModel], error: ValidationError) -> LrsearchError:
    first = error.errors()[0]
    parents, key = first["loc"][:-1], ".".join(str(part) for part in (method, *first["loc"]))
    if first["type"] == "extra_forbidden":
        place = ".".join(str(part) for part in (method, *parents))
        return unknown_name(f"key of {place}", first["loc"][-1], _fields(kind, parents))
    if first["type"] == "missing":
        return LrsearchError(f"{key} is missing")
    if first["type"] == "value_error":
        return LrsearchError(f"{key}: {first['ctx']['error']}")
    if isinstance(first["input"], Mapping) and len(first["input"]) == 1 and not is_distribution(first["input"]):
        return unknown_name(key, next(iter(first["input"])), SPELLINGS)
    expected = first["msg"][0].lower() + first["msg"][1:]
    return LrsearchError(f"{key} is {first['input']!r}, {expected.replace('input should', 'it should')}")


def _fields(kind: type[BaseModel], parents: tuple[int | str, ...]) -> list[str]:
    """The keys that a model takes, or the model nested in it under ``parents``."""
    for parent in parents:
        annotation = kind.model_fields[str(parent)].annotation
        nested = [part for part in (annotation, *get_args(annotation)) if _is_model(part)]
        kind = nested[0]
    return list(kind.model_fields)


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
