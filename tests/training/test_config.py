from typing import Any

import pytest
from pydantic import ValidationError

from lrsearch.training import TrainingConfig


def test_the_demo_entry_is_valid() -> None:
    config = TrainingConfig.model_validate({"epochs": 12, "optimizer": "sgd", "lr": 0.1})
    assert (config.momentum, config.weight_decay, config.schedule) == (0.9, 5e-4, "cosine")
    assert TrainingConfig.model_validate(config.model_dump(mode="json")) == config


def test_every_field_is_described() -> None:
    assert all(field.description for field in TrainingConfig.model_fields.values())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epoch": 3}, "Extra inputs"),
        ({"epochs": -1}, "greater than or equal to 0"),
        ({"optimizer": "sdg"}, "'sgd', 'adam', 'adamw' or 'rmsprop'"),
        ({"lr": 0}, "greater than 0"),
        ({"lr": float("inf")}, "finite"),
        ({"epochs": 4, "schedule_epochs": 3}, "schedule_epochs is 3, expected at least epochs, which is 4"),
        ({"schedule": "step"}, "milestones is empty"),
        ({"nesterov": True, "momentum": 0}, "nesterov"),
        ({"ema_decay": 1}, "less than 1"),
        ({"precision": "half"}, "'float32', 'bfloat16' or 'float16'"),
        ({"distil": {"temperature": 0}}, "greater than 0"),
        ({"distil": {"student": {}}}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        TrainingConfig.model_validate(values)
