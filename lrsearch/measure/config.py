"""What a space file may say about measuring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from itertools import product
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from lrsearch.distributions import Choice, is_distribution, parse_distribution
from lrsearch.measure.deployment import Deployment, Precision


class MeasureConfig(BaseModel):
    """How throughput is measured: networks run as they are deployed, each setting a value or a choice to search.

    A trial compares its network with the dense one under the settings that it drew, and with the dense one under those
    that suit it best.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images per forward pass."""
    dtype: Precision = "float32"
    """Of weights and activations, while time is measured."""
    channels_last: bool = False
    """Whether channels are the innermost axis in memory, as convolutions of many processors prefer."""
    fold_batch_norm: bool = False
    """Whether batch norms are folded into the convolutions before them."""
    compile: bool = False
    """Whether networks are compiled by ``torch.compile``, which takes minutes for large ones."""
    seconds: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Time for one measurement, compressed and dense network together; other trials wait that long."""

    _choices: dict[str, Choice] = PrivateAttr(default_factory=dict)

    @property
    def choices(self) -> dict[str, Choice]:
        """The settings that are searched."""
        return self._choices

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """Every way of deploying a network that a trial may draw, the settings' first values first."""
        drawn = product(*(choice.values for choice in self._choices.values()))
        return tuple(self.deployment(dict(zip(self._choices, values, strict=True))) for values in drawn)

    def deployment(self, settings: Mapping[str, Any] | None = None) -> Deployment:
        """How a network is deployed, with what a trial drew of the choices."""
        values = {field.name: getattr(self, field.name) for field in fields(Deployment)}
        return Deployment(**values | dict(settings or {}))

    @model_validator(mode="wrap")
    @classmethod
    def _choices_apart(cls, data: Any, handler: ModelWrapValidatorHandler[MeasureConfig]) -> MeasureConfig:
        if not isinstance(data, Mapping):
            return handler(data)
        choices = {key: _choice(key, value) for key, value in data.items() if is_distribution(value)}
        first = handler({**data, **{key: choice.values[0] for key, choice in choices.items()}})
        for key, choice in choices.items():
            for value in choice.values[1:]:
                handler({**data, **{other: each.values[0] for other, each in choices.items()}, key: value})
        first._choices = choices
        return first

    @model_serializer(mode="wrap")
    def _with_choices(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        spelled = {key: {"choice": list(choice.values)} for key, choice in self._choices.items()}
        values: dict[str, Any] = handler(self)
        return values | spelled


def _choice(key: str, value: Mapping[str, Any]) -> Choice:
    parsed = parse_distribution(value)
    if not isinstance(parsed, Choice) or key == "seconds":
        raise ValueError(f"{key} is {dict(value)!r}, expected a value" + (" or a choice" if key != "seconds" else ""))
    return parsed
