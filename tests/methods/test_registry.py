from importlib.metadata import EntryPoint
from typing import Any

import pytest

import lrsearch.methods
from lrsearch.errors import LrsearchError
from lrsearch.methods import alds, load_method, method_names, parse_hyperparameters


def add(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    point = EntryPoint(name, value, "lrsearch.methods")
    monkeypatch.setattr(lrsearch.methods, "entry_points", lambda group: [point])


def test_methods_are_the_modules_of_the_package() -> None:
    assert {"alds", "tucker"} <= set(method_names())
    assert not {"base", "one_shot"} & set(method_names())
    assert load_method("alds") is alds.METHOD


def test_installed_packages_add_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "theirs", "lrsearch.methods.alds:METHOD")
    assert "theirs" in method_names()
    assert load_method("theirs") is alds.METHOD
    assert parse_hyperparameters("theirs", {"n_seeds": 3}).model_dump()["n_seeds"] == 3


def test_a_broken_addition_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "theirs", "no_such_package:METHOD")
    with pytest.raises(LrsearchError, match=r"'theirs' of no_such_package:METHOD cannot be loaded"):
        load_method("theirs")


def test_own_methods_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "alds", "no_such_package:METHOD")
    assert load_method("alds") is alds.METHOD


def test_a_misspelt_method_is_told_the_nearest() -> None:
    with pytest.raises(LrsearchError, match=r"method: 'tuker' is not known; did you mean 'tucker'\?"):
        load_method("tuker")


@pytest.mark.parametrize(
    ("method", "values", "sentence"),
    [
        ("alds", {"n_seed": 3}, "key of alds: 'n_seed' is not known; did you mean 'n_seeds'?"),
        ("alds", {"budget": {"parms": 0.5}}, "key of alds.budget: 'parms' is not known; did you mean 'params'?"),
        ("tucker", {"budget": {"flop": 0.5}}, "key of tucker.budget: 'flop' is not known; did you mean 'flops'?"),
        ("alds", {"budget": {"params": 1.5}}, "alds.budget.params is 1.5, it should be less than or equal to 1"),
        ("alds", {"budget": {}}, "alds.budget: expected at least one of params, flops and latency"),
        ("alds", {"rule": "best"}, "alds.rule is 'best', it should be 'max', 'alternating', 'sum'"),
        ("alds", {"n_seeds": 0}, "alds.n_seeds is 0, it should be greater than or equal to 1"),
        ("tucker", {"alpha": "big"}, "tucker.alpha is 'big', it should be a valid number"),
        ("tucker", {"alpha": 2, "budget": {"params": 0.5}}, "tucker: expected alpha or budget, got both"),
    ],
)
def test_a_wrong_hyperparameter_is_one_sentence(method: str, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LrsearchError) as caught:
        parse_hyperparameters(method, values)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
