"""What an editor is told of a space file agrees with what lrsearch says when it reads one."""

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from lrsearch.errors import LrsearchError
from lrsearch.methods import load_method, method_names
from lrsearch.record import DIRECTIONS
from lrsearch.space import load_space, parse_space
from lrsearch.space_schema import space_schema

SPACES = sorted((Path(__file__).parents[1] / "search_spaces").glob("*.yaml"))
SMALL = {"model": {"name": "digits_mlp"}, "data": {"name": "digits"}, "methods": {"alds": {}}}


@pytest.fixture(scope="module")
def schema():
    return space_schema()


@pytest.fixture(scope="module")
def faults(schema):
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    return lambda space: [fault.message for fault in validator.iter_errors(space)]


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_that_comes_with_lrsearch_is_accepted(faults, path):
    load_space(path)

    assert not faults(yaml.safe_load(path.read_text()))


RIGHT = {
    "every method left open": {"methods": {name: {} for name in method_names()}},
    "own code": {"model": {"name": "my.models:net", "depth": 3}, "data": {"name": "my.data:splits"}},
    "distributions": {
        "methods": {
            "alds": {"budget": {"params": {"uniform": [0.1, 0.8]}}, "max_subspaces": {"logint": [1, 8]}},
            "tucker": {"alpha": {"loguniform": [1.5, 10]}, "branches": {"choice": [1, 2]}, "stem": True},
        }
    },
    "settings of measuring": {"measure": {"batch_size": {"choice": [1, 64]}, "seconds": 0.5}},
    "presets": {"train": {"preset": "cifar10_resnet20"}, "retrain": {"preset": "cifar10_resnet20", "rounds": 2}},
    "no rungs": {"search": {"rungs": None, "sampler": "nsga2"}},
}
WRONG = {
    "unknown key": {"objective": {"accuracy": "max"}},
    "no methods": {"methods": None},
    "unknown model": {"model": {"name": "digits_mpl"}},
    "model without a name": {"model": {"width": 3}},
    "unknown data": {"data": {"name": "digit"}},
    "unknown method": {"methods": {"aldss": {}}},
    "unknown hyperparameter": {"methods": {"alds": {"buget": {"params": 0.5}}}},
    "budget out of range": {"methods": {"alds": {"budget": {"params": 1.5}}}},
    "budget of an unknown resource": {"methods": {"alds": {"budget": {"parms": 0.5}}}},
    "unknown distribution": {"methods": {"tucker": {"alpha": {"lognormal": [1, 2]}}}},
    "distribution of one number": {"methods": {"tucker": {"alpha": {"uniform": [1]}}}},
    "choice of nothing": {"methods": {"tucker": {"alpha": {"choice": []}}}},
    "unknown metric": {"objectives": {"acuracy": "max"}},
    "wrong direction": {"objectives": {"flops": "max"}},
    "no objective": {"objectives": {}},
    "bound of an unknown metric": {"constraints": {"drop": 5}},
    "unknown sampler": {"search": {"sampler": "tpee"}},
    "no trials": {"search": {"trials": 0}},
    "negative epochs": {"retrain": {"epochs": -1}},
    "unknown preset": {"train": {"preset": "cifar10"}},
    "range of seconds": {"measure": {"seconds": {"choice": [1, 2]}}},
    "distribution of a setting": {"measure": {"batch_size": {"int": [1, 64]}}},
    "no cpus": {"resources": {"cpus": 0}},
}


@pytest.mark.parametrize("changes", RIGHT.values(), ids=RIGHT)
def test_what_lrsearch_reads_is_accepted(faults, changes):
    parse_space(SMALL | changes)

    assert not faults(SMALL | changes)


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_what_lrsearch_refuses_is_refused(faults, changes):
    with pytest.raises(LrsearchError):
        parse_space(SMALL | changes)

    assert faults(SMALL | changes)


def test_each_key_is_explained(schema):
    objects = [schema, *schema["$defs"].values(), *schema["$defs"]["methods"].values()]
    plain = {"params", "flops", "latency", "cpus", "gpus", "memory"}

    bare = {
        key
        for each in objects
        for key, value in each.get("properties", {}).items()
        if not {"description", "$ref"} & set(value)
    }

    assert bare <= {"name", *plain, *DIRECTIONS, *method_names()}
    for method in method_names():
        fields = load_method(method).Hyperparameters.model_fields
        reference = schema["properties"]["methods"]["properties"][method]["$ref"]
        assert set(schema["$defs"]["methods"][reference.rpartition("/")[2]]["properties"]) == set(fields)
