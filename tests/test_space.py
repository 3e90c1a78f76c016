"""A space file is checked before anything runs, and every fault is one sentence that names the place."""

import contextlib
import re
import sys

import pytest

from lrsearch.distributions import IntUniform, Uniform
from lrsearch.errors import LrsearchError
from lrsearch.space import differences, load_space, parse_space

VALID = """
model: {name: digits_mlp}
data: {name: digits}
train: {epochs: 12, lr: 1e-1}
retrain: {epochs: 4}
objectives: {accuracy: max, flops: min}
constraints: {accuracy_drop: 5.0}
methods:
  alds: {budget: {params: {uniform: [0.1, 0.8]}}}
  tucker: {alpha: {loguniform: [1.5, 10]}}
search: {trials: 6}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return path

    return write


def test_valid_space_is_read_with_its_distributions(write):
    space = load_space(write(VALID))

    assert space.train.lr == 0.1
    assert space.open_choices("alds") == {"budget.params": Uniform(0.1, 0.8)}
    assert space.open_choices("tucker") == {"alpha": Uniform(1.5, 10, log=True)}
    drawn = space.draw("alds", lambda name, distribution: distribution.high)
    assert drawn == {"budget": {"params": 0.8}}


def test_empty_method_searches_its_own_choices(write):
    space = load_space(write(VALID.replace("{alpha: {loguniform: [1.5, 10]}}", "{}")))

    assert "alpha" in space.open_choices("tucker")


def test_settings_override_keys(write):
    space = load_space(write(VALID), {"retrain.epochs": "7", "search.seed": "3", "methods.tucker.alpha": "2"})

    assert space.retraining().epochs == 7
    assert space.search.seed == 3
    assert space.open_choices("tucker") == {}


def test_retraining_rewinds_to_the_end_of_the_dense_schedule(write):
    retraining = load_space(write(VALID)).retraining()

    assert (retraining.epochs, retraining.schedule_epochs, retraining.lr) == (4, 12, 0.1)


def test_retraining_with_a_rate_of_its_own_has_a_schedule_of_its_own(write):
    retraining = load_space(write(VALID.replace("{epochs: 4}", "{epochs: 4, lr: 0.01}"))).retraining()

    assert (retraining.epochs, retraining.schedule_epochs, retraining.lr) == (4, None, 0.01)


def test_retraining_has_a_teacher_only_if_it_says_so(write):
    taught = "{epochs: 12, lr: 1e-1, distil: {teacher: {name: digits_resnet}}}"
    own = VALID.replace("{epochs: 12, lr: 1e-1}", taught)

    assert load_space(write(own)).retraining().distil is None
    distil = load_space(write(own.replace("{epochs: 4}", "{epochs: 4, distil: {weight: 0.5}}"))).retraining().distil
    assert distil is not None and distil.teacher is None and distil.weight == 0.5


FAULTS = {
    "layers of another network": (
        ("lr: 1e-1}", "lr: 1e-1, distil: {teacher: {name: digits_resnet}, layers: 0.5}}"),
        ["train.distil.layers is 0.5", "retrain"],
    ),
    "misspelt section": (("retrain:", "retrian:"), ["retrian", "'retrain'"]),
    "misspelt key": (("lr: 1e-1", "lrr: 1e-1"), ["train", "lrr", "'lr'"]),
    "rounds without training": (("{epochs: 4}", "{rounds: 2}"), ["retrain", "rounds is 2", "epochs"]),
    "rounds without a budget": (("{epochs: 4}", "{epochs: 4, rounds: 2}"), ["retrain.rounds is 2", "budget", "tucker"]),
    "rounds on several GPUs": (
        ("retrain: {epochs: 4}", "resources: {gpus: 2}\nretrain: {epochs: 4, rounds: 2}"),
        ["retrain.rounds is 2", "alds", "several"],
    ),
    "misspelt retrain key": (("{epochs: 4}", "{epoch: 4}"), ["retrain", "epoch", "'epochs'"]),
    "unknown method": (("  alds:", "  aldss:"), ["aldss", "'alds'"]),
    "unknown model": (("digits_mlp", "digits_mpl"), ["digits_mpl", "'digits_mlp'"]),
    "unknown data": (("name: digits}\ntrain", "name: digit}\ntrain"), ["data", "'digit'", "'digits'"]),
    "unknown metric": (("flops: min", "flop: min"), ["objectives", "'flop'", "'flops'"]),
    "wrong direction": (("flops: min", "flops: max"), ["objectives", "flops", "min"]),
    "wrong type": (("epochs: 12", "epochs: many"), ["train.epochs", "'many'", "integer"]),
    "negative": (("trials: 6", "trials: -1"), ["search.trials", "-1"]),
    "misspelt hyperparameter": (("{alpha:", "{alhpa:"), ["tucker", "alhpa", "'alpha'"]),
    "misspelt distribution": (("uniform: [0.1", "unifrom: [0.1"), ["alds", "budget"]),
    "distribution out of range": (("[0.1, 0.8]", "[0.1, 1.8]"), ["alds", "budget", "1.8"]),
    "distribution upside down": (("[0.1, 0.8]", "[0.8, 0.1]"), ["uniform", "low <= high"]),
    "no method": ((VALID[VALID.index("methods:") : VALID.index("search:")], "methods: {}\n"), ["methods"]),
    "key twice": (("search:", "data: {name: digits}\nsearch:"), ["'data'", "twice", "line"]),
    "malformed YAML": (("{name: digits}", "{name: digits"), ["not valid YAML", "line"]),
    "enqueued unknown method": (("{trials: 6}", "{enqueue: [{method: ald}]}"), ["search.enqueue.0.method", "'alds'"]),
    "enqueued unknown key": (("{trials: 6}", "{enqueue: [{method: tucker, alfa: 2}]}"), ["alfa", "'alpha'"]),
    "enqueued out of range": (
        ("{trials: 6}", "{enqueue: [{method: tucker, alpha: 99}]}"),
        ["alpha is 99", "[1.5, 10]"],
    ),
    "grid of a range": (("{trials: 6}", "{sampler: grid}"), ["alds.budget.params", "uniform [0.1, 0.8]"]),
    "rungs too close": (("{trials: 6}", "{rungs: {factor: 1}}"), ["search.rungs.factor", "1"]),
    "no teacher": (("lr: 1e-1", "distil: {weight: 2}"), ["train.distil.teacher.name", "missing"]),
    "unknown teacher": (("lr: 1e-1", "distil: {teacher: {name: digits_mpl}}"), ["train.distil.teacher", "digits_mlp"]),
    "a teacher of its own": (
        ("{epochs: 4}", "{epochs: 4, distil: {teacher: {name: digits_mlp}}}"),
        ["retrain.distil.teacher", "the dense network"],
    ),
    "unknown precision": (("lr: 1e-1", "precision: half"), ["train.precision", "half", "bfloat16"]),
    "no mapping": ((VALID, "- alds\n"), ["expected keys"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_one_sentence_naming_file_key_and_expectation(write, fault):
    (old, new), expected = FAULTS[fault]
    assert old in VALID
    path = write(VALID.replace(old, new, 1))

    with pytest.raises(LrsearchError) as caught:
        load_space(path)

    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for word in expected:
        assert word in message, message


def test_missing_file_is_named(tmp_path):
    with pytest.raises(LrsearchError, match=r"nowhere\.yaml"):
        load_space(tmp_path / "nowhere.yaml")


def test_grid_holds_as_many_trials_as_there_are_points(write):
    choices = VALID.replace("{uniform: [0.1, 0.8]}", "{choice: [0.2, 0.5, 0.7]}")
    choices = choices.replace(
        "{alpha: {loguniform: [1.5, 10]}}", "{alpha: {choice: [2, 3]}, stem: {choice: [no, yes]}}"
    )

    assert load_space(write(choices), {"search.sampler": "grid", "search.trials": "99"}).search.trials == 3 + 2 * 2
    assert load_space(write(choices), {"search.sampler": "grid"}).search.trials == 6


def test_enqueued_points_are_nested_or_dotted_and_may_be_partial(write):
    text = VALID.replace(
        "{trials: 6}",
        "{enqueue: [{method: alds, budget: {params: 0.3}}, {method: alds, budget.params: 0.4}, {method: tucker}]}",
    )

    points = list(load_space(write(text)).enqueued())

    assert points == [("alds", {"budget.params": 0.3}), ("alds", {"budget.params": 0.4}), ("tucker", {})]


def test_only_growth_of_trials_epochs_and_resources_is_no_difference(write):
    space = load_space(write(VALID))
    grown = load_space(write(VALID), {"search.trials": "9", "resources.cpus": "2"})
    longer = load_space(write(VALID), {"retrain.epochs": "5"})
    other = load_space(write(VALID), {"retrain.epochs": "3"})

    assert differences(space, grown) == []
    assert differences(grown, space) == ["resources.cpus: 2.0 -> 1.0", "search.trials: 9 -> 6"]
    assert differences(space, longer) == []
    assert differences(space, other) == ["retrain.epochs: 4 -> 3"]


def test_space_survives_json():
    space = parse_space(
        {
            "model": {"name": "digits_mlp"},
            "data": {"name": "digits"},
            "methods": {"alds": {"max_subspaces": {"int": [1, 4]}}},
        }
    )

    again = parse_space(space.model_dump(mode="json"))

    assert again == space
    assert again.open_choices("alds") == {"max_subspaces": IntUniform(1, 4)}


def test_a_budget_may_hold_several_resources_each_with_its_distribution(write):
    budget = "{params: {uniform: [0.3, 0.5]}, flops: 0.6}"
    space = load_space(write(VALID), {"methods.alds.budget": budget})

    assert space.open_choices("alds") == {"budget.params": Uniform(0.3, 0.5)}
    drawn = space.draw("alds", lambda name, distribution: distribution.low)
    assert drawn == {"budget": {"params": 0.3, "flops": 0.6}}


TRAP = "import pathlib\npathlib.Path('sprung').touch()\n\n\ndef run(**_):\n    pass\n"


@pytest.mark.parametrize(
    "line",
    [
        "model: {name: 'trap:run', weights: 'trap:run'}",
        "data: {name: 'trap:run'}",
        "methods: {'trap:run': {}}",
        "methods: {'trap.run': {}}",
        "search: {sampler: 'trap:run'}",
        "objectives: {'trap:run': max}",
        "train: {optimizer: 'trap:run'}",
        "train: {schedule: 'trap:run'}",
        "retrain: {optimizer: 'trap:run'}",
        "resources: {accelerator: 'trap:run'}",
        "model: !!python/object/apply:trap.run []",
        "data: !!python/name:trap.run",
        "search: !!python/module:trap {}",
    ],
)
def test_reading_a_space_imports_nothing_that_it_names(line, tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap.py").write_text(TRAP)
    key = line.partition(":")[0]
    kept = re.sub(rf"^{key}:.*\n(?:[ \t].*\n)*", "", VALID, flags=re.MULTILINE)

    with contextlib.suppress(LrsearchError):
        load_space(write(f"{kept}\n{line}\n"))

    assert "trap" not in sys.modules and not (tmp_path / "sprung").exists()
