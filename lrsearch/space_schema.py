"""The JSON schema of a search-space file, by which editors complete and check one while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from lrsearch.data import data_names
from lrsearch.distributions import SPELLINGS
from lrsearch.methods import load_method, method_names
from lrsearch.models import model_names
from lrsearch.record import DIRECTIONS
from lrsearch.space import Space
from lrsearch.training import RetrainingConfig
from lrsearch.training.presets import PRESETS

Schema = dict[str, Any]
_DISTRIBUTION = {"$ref": "#/$defs/distribution"}
_CHOICE = {"$ref": "#/$defs/choice"}


def space_schema() -> Schema:
    """The schema (JSON Schema 2020-12) of what ``load_space`` reads, with the methods that are installed.

    It refuses unknown keys and names and values of a wrong type or range. What depends on several keys at once only
    ``load_space`` checks, so that a file that the schema accepts may still be refused.
    """
    methods = {name: load_method(name).Hyperparameters for name in method_names()}
    own, definitions = models_json_schema(
        [(Space, "validation"), (RetrainingConfig, "validation")], ref_template="#/$defs/{model}"
    )
    known, nested = models_json_schema(
        [(kind, "validation") for kind in methods.values()], ref_template="#/$defs/methods/{model}"
    )
    definitions = definitions["$defs"]
    space = definitions.pop(_name(own[Space, "validation"]))
    retraining = definitions[_name(own[RetrainingConfig, "validation"])]
    keys = space["properties"]
    _may_be_drawn(definitions["MeasureConfig"]["properties"], _CHOICE, but=("seconds",))
    for hyperparameters in nested["$defs"].values():
        _may_be_drawn(hyperparameters.get("properties", {}), _DISTRIBUTION)
        hyperparameters.pop("required", None)  # what is left out may be searched
    for training in (definitions["TrainingConfig"], retraining):
        training["properties"]["preset"] = {"enum": list(PRESETS), "description": "A published schedule."}
    keys["model"] |= _named(model_names())
    keys["data"] |= _named(data_names())
    keys["retrain"] = {"$ref": "#/$defs/RetrainingConfig", "description": keys["retrain"].get("description", "")}
    keys["objectives"] |= _exactly({metric: {"const": way} for metric, way in DIRECTIONS.items()}, minProperties=1)
    keys["constraints"] |= _exactly({metric: {"type": "number"} for metric in DIRECTIONS})
    keys["methods"] |= _exactly({name: known[kind, "validation"] for name, kind in methods.items()}, minProperties=1)
    spellings = {kind: _spelled(kind) for kind in SPELLINGS}
    rest = {
        "methods": nested["$defs"],
        "distribution": {"description": "What a search draws from.", "anyOf": list(spellings.values())},
        "choice": spellings["choice"],
    }
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    about = {"title": "Search space of lrsearch", "description": "What is searched, how and where."}
    return {**dialect, **space, **about, "$defs": definitions | rest}


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _may_be_drawn(properties: Schema, drawn: Schema, but: Sequence[str] = ()) -> None:
    """Let each property be a value, as it says, or be drawn."""
    for name, value in properties.items():
        if name not in but:
            about = {key: value.pop(key) for key in ("title", "description", "default") if key in value}
            properties[name] = about | {"anyOf": [value, drawn]}


def _named(names: Iterable[str]) -> Schema:
    name = {"anyOf": [{"enum": list(names)}, {"pattern": ":", "description": "package.module:callable"}]}
    return {"properties": {"name": {"type": "string", **name}}, "required": ["name"]}


def _exactly(properties: Schema, **more: Any) -> Schema:
    return {"properties": properties, "additionalProperties": False, **more}


def _spelled(kind: str) -> Schema:
    number = {"type": "integer" if kind.endswith("int") else "number"}
    pair = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
    values = {"type": "array", "minItems": 1} if kind == "choice" else pair
    return {"type": "object", **_exactly({kind: {**values, "description": SPELLINGS[kind]}}), "required": [kind]}
