"""The search-space file: what it may say, checked before anything runs."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from lrsearch.data import data_names
from lrsearch.dense import Workplace
from lrsearch.distributions import Choice, Distribution
from lrsearch.errors import LrsearchError
from lrsearch.measure.config import MeasureConfig
from lrsearch.method_entries import Draw, check_method, flatten, lowest, method_entries, resolve
from lrsearch.methods import method_names, parse_hyperparameters
from lrsearch.models import model_names
from lrsearch.names import unknown_name
from lrsearch.record import DIRECTIONS
from lrsearch.search_config import ResourcesConfig, SearchConfig
from lrsearch.training import RetrainingConfig, TrainingConfig
from lrsearch.training.presets import with_preset

MEASURE = "measure"
"""The key under which a trial's hyperparameters hold what it drew of the settings that time is measured under."""


class Space(BaseModel):
    """A validated search space. Build one with ``load_space`` or ``parse_space``."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: dict[str, Any]
    """``name`` (a known name, ``timm:NAME``, ``hf:FOLDER`` or ``package.module:callable``), its arguments, and
    ``weights``, a file, if trained."""
    data: dict[str, Any]
    """``name`` (a known name or ``package.module:callable``) and its arguments."""
    train: TrainingConfig = TrainingConfig()
    """Training of the dense network; unused where ``model.weights`` is given."""
    retrain: dict[str, Any] = {}
    """Training after compression: overrides of ``train``. Without ``lr`` or ``schedule`` of its own it runs the
    last epochs of the dense schedule (learning-rate rewinding, ALDS supplement B.5). ``rounds`` repeats both."""
    objectives: dict[str, Literal["max", "min"]] = {"accuracy": "max", "flops": "min", "throughput": "max"}
    """Metric -> ``max`` or ``min``: what the front is taken over."""
    constraints: dict[str, float] = {}
    """Metric -> bound: an upper bound for metrics to minimise, a lower bound for metrics to maximise."""
    methods: dict[str, dict[str, Any]]
    """Method -> hyperparameters, each a value or a distribution; ``{}`` searches the method's own choices."""
    search: SearchConfig = SearchConfig()
    """How the space is explored."""
    resources: ResourcesConfig = ResourcesConfig()
    """What one trial occupies while it runs."""
    measure: MeasureConfig = MeasureConfig()
    """How networks are deployed where their throughput is measured."""

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _named("model", value, model_names)

    @field_validator("data")
    @classmethod
    def _known_data(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _named("data", value, data_names)

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, value: dict[str, str]) -> dict[str, str]:
        if not value:
            raise ValueError("expected at least one objective")
        for metric, direction in value.items():
            _known_metric("objectives", metric)
            if direction != DIRECTIONS[metric]:
                raise ValueError(f"{metric} can only be searched for its {DIRECTIONS[metric]}")
        return value

    @field_validator("constraints")
    @classmethod
    def _known_constraints(cls, value: dict[str, float]) -> dict[str, float]:
        for metric in value:
            _known_metric("constraints", metric)
        return value

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not value:
            raise ValueError(f"expected at least one of {', '.join(method_names())}")
        try:
            for method, entries in value.items():
                check_method(method, entries)
        except LrsearchError as error:
            raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Space:
        if self.search.sampler == "grid":
            self.search.trials = min(self.search.trials, self._grid_size())
        for method in self.resources.methods:
            if method not in self.methods:
                raise ValueError(str(unknown_name("resources.methods", method, list(self.methods))))
            if bool(self.resources.of(method).gpus) != bool(self.resources.gpus):
                raise ValueError(
                    f"resources.methods.{method}.gpus is {self.resources.of(method).gpus:g} but resources.gpus is "
                    f"{self.resources.gpus:g}, expected all methods on the same kind of device, to compare throughputs"
                )
        for _ in self.enqueued():
            pass  # it checks what it yields
        try:
            retraining = self.retraining()
        except ValidationError as error:
            raise ValueError(f"retrain.{_sentence(error, RetrainingConfig)}") from error
        if retraining.rounds > 1:
            self._check_rounds(retraining.rounds)
        self._check_teachers(retraining)
        return self

    def _check_teachers(self, retraining: RetrainingConfig) -> None:
        if self.train.distil is not None:
            _named("train.distil.teacher", self.train.distil.teacher or {}, model_names)
            if self.train.distil.layers:
                raise ValueError(f"train.distil.layers is {self.train.distil.layers}, expected it under retrain alone")
        if retraining.distil is not None and retraining.distil.teacher is not None:
            raise ValueError("retrain.distil.teacher is given, expected none: the dense network is the teacher there")

    def _check_rounds(self, rounds: int) -> None:
        for method, entries in self.methods.items():
            if self.resources.of(method).processes > 1:
                raise ValueError(f"retrain.rounds is {rounds}, which runs on one GPU, but {method} is given several")
            if parse_hyperparameters(method, resolve(method_entries(method, entries), lowest)).budget is None:
                raise ValueError(f"retrain.rounds is {rounds}, which needs a budget to tighten: {method} has none")

    def retraining(self, epochs: int | None = None) -> RetrainingConfig:
        """The training that follows compression: ``train`` with the overrides of ``retrain``, or for other epochs."""
        overrides = with_preset(self.retrain) | ({} if epochs is None else {"epochs": epochs})
        merged = self.train.model_dump() | {"epochs": 0, "distil": None} | overrides
        if isinstance(merged["epochs"], int) and not {"lr", "schedule", "schedule_epochs"} & set(overrides):
            merged["schedule_epochs"] = max(self.train.epochs, merged["epochs"]) or None
        return RetrainingConfig.model_validate(merged)

    def workplace(self, settings: Mapping[str, Any] | None = None, method: str = "") -> Workplace:
        """Where a trial of a method runs and how it measures, with the settings of ``measure`` that it drew."""
        return Workplace(
            device="cuda" if self.resources.gpus else "cpu",
            threads=self.resources.threads,
            deployment=self.measure.deployment(settings),
            seconds=self.measure.seconds,
            processes=self.resources.of(method).processes,
            compares_speed=self.compares_speed,
        )

    @property
    def compares_speed(self) -> bool:
        """Whether a measured time is among the objectives and constraints."""
        return not {"throughput", "speedup", "seconds"}.isdisjoint({*self.objectives, *self.constraints})

    def open_choices(self, method: str) -> dict[str, Distribution]:
        """The hyperparameters of a method that are searched: dotted name -> distribution."""
        flat = flatten(method_entries(method, self.methods[method]))
        own = {key: value for key, value in flat.items() if isinstance(value, Distribution)}
        return own | {f"{MEASURE}.{key}": choice for key, choice in self.measure.choices.items()}

    def enqueued(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The trials to begin with: method, and dotted name -> value of the hyperparameters that are fixed.

        Raises:
            ValueError: one is not a point of this space.
        """
        for index, entry in enumerate(self.search.enqueue):
            key = f"search.enqueue.{index}"
            method = entry.get("method")
            if method not in self.methods:
                raise ValueError(str(unknown_name(f"{key}.method", str(method), list(self.methods))))
            choices = self.open_choices(method)
            values = flatten({name: value for name, value in entry.items() if name != "method"})
            for name, value in values.items():
                if name not in choices:
                    raise ValueError(str(unknown_name(f"{key}: open hyperparameter of {method}", name, list(choices))))
                if not choices[name].contains(value):
                    raise ValueError(f"{key}.{name} is {value!r}, expected a value of {choices[name]}")
            yield method, values

    def _grid_size(self) -> int:
        if self.search.enqueue:
            raise ValueError("search.enqueue is of no use to search.sampler grid, which tries every point")
        size = 0
        for method in self.methods:
            choices = self.open_choices(method)
            for name, choice in choices.items():
                if not isinstance(choice, Choice):
                    raise ValueError(f"search.sampler grid needs choices, but {method}.{name} is {choice}")
            size += math.prod(len(choice.values) for choice in choices.values() if isinstance(choice, Choice))
        return size

    def draw(self, method: str, draw: Draw) -> dict[str, Any]:
        """Hyperparameters of one trial: fixed values as they are, open ones drawn; ``measure`` among them if open."""
        drawn = resolve(method_entries(method, self.methods[method]), draw)
        settings = resolve(self.measure.choices, draw, f"{MEASURE}.")
        return drawn | ({MEASURE: settings} if settings else {})


def load_space(path: Path, settings: Mapping[str, str] | None = None) -> Space:
    """Read a search-space file, with ``settings`` (dotted key -> YAML text) laid over it.

    Raises:
        LrsearchError: the file cannot be read, is not YAML or not a valid space.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_SpaceLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise LrsearchError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LrsearchError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise LrsearchError(
            f"{path}: expected keys such as model, data and methods, got {type(data).__name__ if data else 'nothing'}"
        )
    return parse_space(data, source=str(path), settings=settings)


def parse_space(data: Mapping[str, Any], source: str = "space", settings: Mapping[str, str] | None = None) -> Space:
    """Validate a space given as plain data, with ``settings`` laid over it.

    Raises:
        LrsearchError: names ``source``, the key, the value and what was expected.
    """
    content = copy.deepcopy(dict(data))
    for key, text in (settings or {}).items():
        _set(content, key, text)
    try:
        return Space.model_validate(content)
    except ValidationError as error:
        raise LrsearchError(f"{source}: {_sentence(error)}") from error


def differences(old: Space, new: Space) -> list[str]:
    """What keeps ``new`` from continuing a sweep of ``old``: one line per key, old value -> new value.

    Growing ``search.trials``, ``retrain.epochs`` or ``resources`` is no difference, nor is what else says only where
    trials run: it changes how much is searched, not what.
    """
    before, after = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    free = ("resources.memory", "resources.max_concurrent", "resources.methods", "resources.workers")
    lines = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        may_grow = key in ("search.trials", "retrain.epochs", "resources.cpus", "resources.gpus")
        if key.startswith(free):
            continue
        if was != now and not (may_grow and was is not None and now is not None and now >= was):
            lines.append(f"{key}: {json.dumps(was)} -> {json.dumps(now)}")
    return lines


class _SpaceLoader(yaml.SafeLoader):
    """YAML with 1e-3 a number, as people write it, and a key given twice an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_SpaceLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_value(text: str) -> Any:
    """Read a value as a space file would, for options such as ``--set``."""
    try:
        return yaml.load(text, Loader=_SpaceLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise LrsearchError(f"{text!r} is not a valid value: {' '.join(str(error).split())}") from error


def _set(data: dict[str, Any], key: str, text: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise LrsearchError(f"--set {key}={text}: {parent} holds a value, not keys")
    data[last] = parse_value(text)


def _named(key: str, value: dict[str, Any], names: Callable[[], Iterable[str]]) -> dict[str, Any]:
    name = value.get("name")
    if not isinstance(name, str):
        raise ValueError(
            f"{key}.name is missing, expected one of {', '.join(islice(names(), 3))}, ... or package.module:callable"
        )
    if ":" not in name and name not in names():
        raise ValueError(str(unknown_name(f"{key}.name", name, names())))
    return value


def _known_metric(key: str, metric: str) -> None:
    if metric not in DIRECTIONS:
        raise ValueError(str(unknown_name(key, metric, DIRECTIONS)))


def _sentence(error: ValidationError, model: type[BaseModel] = Space) -> str:
    """The first fault of a pydantic error, as one sentence."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        place = ".".join(str(part) for part in first["loc"][:-1]) or "the space"
        return str(unknown_name(f"key of {place}", first["loc"][-1], _siblings(model, first["loc"])))
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        return text if text.startswith(key) else f"{key}: {text}"
    expected = first["msg"][0].lower() + first["msg"][1:]
    return f"{key} is {first['input']!r}, {expected.replace('input should', 'it should')}"


def _siblings(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where an unknown one was given."""
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)
