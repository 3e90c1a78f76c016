import pytest

from lrsearch.errors import LrsearchError
from lrsearch.names import call_with, import_callable, unknown_name


def test_the_nearest_name_is_offered_and_long_lists_are_cut() -> None:
    names = [f"name{number}" for number in range(30)]
    text = str(unknown_name("key", "naem7", names))
    assert "did you mean 'name7'?" in text and text.endswith("and 18 more")
    assert "did you mean" not in str(unknown_name("key", "xyz", names))


def test_an_import_path_leads_to_a_nested_callable() -> None:
    assert import_callable("key", "collections:OrderedDict.fromkeys")("a") == {"a": None}


@pytest.mark.parametrize("path", ["json", "json:", ":loads", "json:nothing", "json:nothing.more", "..json:loads"])
def test_a_path_that_leads_nowhere_is_one_sentence(path: str) -> None:
    with pytest.raises(LrsearchError, match="key: "):
        import_callable("key", path)


def test_arguments_are_checked_before_the_call() -> None:
    def function(needed: int, other: int = 2) -> int:
        return needed + other

    assert call_with(function, {"needed": 1}, key="key", name="name") == 3
    with pytest.raises(LrsearchError, match=r"key\.needed is missing: name needs it"):
        call_with(function, {"other": 1}, key="key", name="name")
    with pytest.raises(LrsearchError, match="'othre' is not known; did you mean 'other'"):
        call_with(function, {"needed": 1, "othre": 1}, key="key", name="name")
    with pytest.raises(LrsearchError, match="key name cannot be made with needed='a': "):
        call_with(function, {"needed": "a"}, key="key", name="name")


def test_any_argument_reaches_a_function_that_takes_them_all() -> None:
    assert call_with(lambda **values: values, {"a": 1}, key="key", name="name") == {"a": 1}
