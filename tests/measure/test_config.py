import pytest

from lrsearch.errors import LrsearchError
from lrsearch.measure.config import MeasureConfig
from lrsearch.measure.deployment import Deployment
from lrsearch.space import Space, parse_space

SPACE = {
    "model": {"name": "digits_mlp"},
    "data": {"name": "digits"},
    "methods": {"tucker": {"alpha": {"uniform": [2, 4]}}, "svd": {"budget": {"params": 0.5}}},
    "measure": {
        "dtype": {"choice": ["float32", "bfloat16"]},
        "channels_last": {"choice": [False, True]},
        "batch_size": 8,
    },
}


def test_settings_are_values_or_choices() -> None:
    space = parse_space(SPACE)
    assert space.workplace().deployment == Deployment(8)
    drawn = space.workplace({"dtype": "bfloat16", "channels_last": True})
    assert drawn.deployment == Deployment(8, "bfloat16", channels_last=True)
    assert set(space.open_choices("svd")) == {"measure.dtype", "measure.channels_last"}


def test_every_combination_of_choices_is_a_deployment() -> None:
    wanted = [Deployment(8, dtype, channels_last=last) for dtype in ("float32", "bfloat16") for last in (False, True)]
    assert list(parse_space(SPACE).measure.deployments) == wanted
    assert MeasureConfig(batch_size=8).deployments == (Deployment(8),)


def test_a_trial_draws_them_with_its_hyperparameters() -> None:
    asked = []

    def last(name, distribution):
        asked.append(name)
        return distribution.values[-1] if hasattr(distribution, "values") else distribution.high

    drawn = parse_space(SPACE).draw("tucker", last)
    assert drawn == {"alpha": 4, "measure": {"dtype": "bfloat16", "channels_last": True}}
    assert set(asked) == set(parse_space(SPACE).open_choices("tucker"))
    assert "measure" not in parse_space({**SPACE, "measure": {}}).draw("tucker", last)


def test_a_space_with_choices_survives_json() -> None:
    space = parse_space(SPACE)
    again = Space.model_validate(space.model_dump(mode="json"))
    assert again == space and again.measure.choices == space.measure.choices
    assert again.model_dump(mode="json") == space.model_dump(mode="json")


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ({"dtype": {"choice": ["float32", "int8"]}}, r"measure\.dtype is 'int8', it should be 'float32', 'bfloat16'"),
        ({"batch_size": {"choice": [8, 0]}}, r"measure\.batch_size is 0"),
        ({"batch_size": {"int": [1, 8]}}, r"batch_size is .*, expected a value or a choice"),
        ({"seconds": {"choice": [1, 2]}}, r"seconds is .*, expected a value"),
        ({"dtype": {"choice": []}}, r"choice expects a list of at least one value"),
        ({"layout": {"choice": [1]}}, r"layout"),
    ],
)
def test_a_wrong_setting_is_named(measure, message) -> None:
    with pytest.raises(LrsearchError, match=message):
        parse_space({**SPACE, "measure": measure})


def test_every_setting_of_a_deployment_can_be_given() -> None:
    given = {"batch_size": 2, "dtype": "float16", "channels_last": True, "fold_batch_norm": True, "compile": True}
    assert MeasureConfig.model_validate(given).deployment() == Deployment(**given)
