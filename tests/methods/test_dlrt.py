"""What ``dlrt`` does beyond the contract of every method."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrsearch.data import load_data
from lrsearch.errors import LrsearchError
from lrsearch.methods import load_method, parse_hyperparameters
from lrsearch.methods.base import Compressed, Progress, Task
from lrsearch.models import build_model
from lrsearch.training.dlrt import LowRankLayer, truncate
from tests.methods.zoo import collect, compress, make_task, steps, zoo

SHORT = {"adaptive_epochs": 2, "fine_tuning_epochs": 1, "batch_size": 4}


def ranks(compressed: Compressed) -> dict[str, int]:
    return {name: each.ranks[0] for name, each in compressed.recipe.layers.items() if each.kind == "svd"}


@pytest.mark.parametrize(
    "values",
    [
        {"tau": 0.3, "optimizer": "adam", "lr": 0.01},
        {"tau": 0.3, "fine_tuning": "fixed_rank", "integrator": "parallel", "clip": 1.0},
        {"budget": {"params": 0.6}},
        {"integrator": "fixed_rank", "start": "scratch", "initial_rank": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("killed_after", [1, 3, 4, 5])
def test_killed_at_any_step_it_ends_as_if_it_had_not_been(
    values: dict[str, Any], killed_after: int, tmp_path: Path
) -> None:
    """Two steps an epoch: within and between epochs, and in either phase."""
    values = {**SHORT, **values}
    whole = compress("dlrt", values)
    task = replace(make_task(), checkpoint=tmp_path / "compressing.pt")
    running = steps("dlrt", values, task=task)
    for _ in range(killed_after):
        next(running)
    running.close()
    seen, again = collect(steps("dlrt", values, task=replace(make_task(), checkpoint=task.checkpoint)))
    assert again.recipe == whole.recipe
    assert again.history == whole.history
    state, expected = again.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert seen[-1].done == seen[-1].total
    assert seen[0].done == (killed_after - 1) // 2 * 2 + 1


def test_a_checkpoint_of_another_compression_is_refused(tmp_path: Path) -> None:
    task = replace(make_task(), checkpoint=tmp_path / "compressing.pt")
    collect(steps("dlrt", SHORT, task=task))
    with pytest.raises(LrsearchError, match=r"compressing\.pt belongs to a compression with tau None, not 0\.2"):
        collect(steps("dlrt", {**SHORT, "tau": 0.2}, task=replace(make_task(), checkpoint=task.checkpoint)))
    assert task.checkpoint is not None
    task.checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(LrsearchError, match="cannot be read"):
        collect(steps("dlrt", SHORT, task=replace(make_task(), checkpoint=task.checkpoint)))


def test_it_says_that_it_needs_data() -> None:
    with pytest.raises(LrsearchError, match="dlrt trains while it compresses, expected data"):
        compress("dlrt", {}, task=replace(make_task(), splits=None))


def test_ranks_stay_within_their_bounds_and_on_tiles() -> None:
    found = ranks(compress("dlrt", {**SHORT, "tau": 0.05, "r_min": 2, "r_max": 5}))
    assert set(found.values()) <= set(range(2, 6))
    tiled = ranks(compress("dlrt", {**SHORT, "tau": 0.05, "tile": 4}))
    assert {rank % 4 for name, rank in tiled.items() if name not in ("stem", "strided_point")} == {0}


def test_ranks_stay_during_the_warm_up() -> None:
    """Four steps in all; four equal singular values lose one at a tau above one half."""
    values = {**SHORT, "fine_tuning_epochs": 0, "tau": 0.7, "initial_rank": 4, "truncate_every": 1}
    start = ranks(compress("dlrt", {**values, "adaptive_epochs": 0}))
    assert ranks(compress("dlrt", {**values, "warmup_steps": 4})) == start
    assert ranks(compress("dlrt", {**values, "warmup_steps": 3})) != start


def test_bases_are_augmented_once_for_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of four steps: after the third step and at the end of each epoch there is a truncation."""
    seen: list[int] = []

    def watched(layers: dict[str, LowRankLayer], *arguments: Any) -> None:
        seen.append(next(iter(layers.values())).U.shape[-1])
        truncate(layers, *arguments)

    monkeypatch.setattr("lrsearch.training.dlrt.trainer.truncate", watched)
    values = {**SHORT, "fine_tuning_epochs": 0, "batch_size": 2, "initial_rank": 2, "r_max": 2, "truncate_every": 3}
    compress("dlrt", values)
    assert seen == [4] * 4


def test_tau_moves_to_its_end_over_the_adaptive_epochs() -> None:
    history = compress("dlrt", {**SHORT, "tau": 0.4, "tau_start": 0.2}).history
    assert history["tau"] == pytest.approx([0.3, 0.4])


@pytest.mark.parametrize("values", [{"tau": 0.3}, {"budget": {"flops": 0.7}}], ids=str)
def test_history_and_metrics_describe_the_training(values: dict[str, Any]) -> None:
    compressed = compress("dlrt", {**SHORT, **values})
    history, found = compressed.history, ranks(compressed)
    assert {name: course[-1] for name, course in history["ranks"].items() if name in found} == found
    assert {len(course) for course in history["ranks"].values()} == {3}
    assert len(history["loss"]) == len(history["train_accuracy"]) == 3
    assert len(history["tau"]) == 2
    assert compressed.metrics["train_speedup"] > 0
    dense = {name: module.weight for name, module in zoo().named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    held = sum(parameter.numel() for parameter in zoo().parameters())
    whole = held
    for name, rank in found.items():
        groups = 2 if name == "grouped" else 1
        outputs, inputs = len(dense[name]) // groups, dense[name][0].numel()
        held += groups * (2 * rank * (outputs + inputs) + 4 * rank**2) - dense[name].numel()
    assert compressed.metrics["train_cr_p"] == pytest.approx(100 * (1 - held / whole))


def test_from_scratch_nothing_of_the_dense_weights_is_left() -> None:
    model, other = zoo(), zoo()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    first, second = (compress("dlrt", {**SHORT, "start": "scratch"}, each) for each in (model, other))
    assert first.recipe == second.recipe
    states = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_classifier_stays_dense_unless_asked_for() -> None:
    model = build_model({"name": "digits_mlp", "width": 32})
    data = load_data({"name": "digits"})
    task = Task(example_input=data.example_input(), splits=data)
    untrained = {"adaptive_epochs": 0, "fine_tuning_epochs": 0}
    reason = compress("dlrt", untrained, model, task).recipe.layers["5"].reason
    assert reason == "it is the classifier, the network's last Linear layer"
    assert compress("dlrt", {**untrained, "classifier": True}, model, task).recipe.layers["5"].kind == "svd"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"tau": 0.1, "budget": {"params": 0.5}}, "dlrt: expected tau or budget, got both"),
        ({"tau_start": 0.1, "budget": {"params": 0.5}}, "dlrt: expected tau_start or budget, got both"),
        ({"r_min": 5, "r_max": 4}, "dlrt: r_max is 4, expected at least r_min, which is 5"),
        ({"tau": 1.0}, r"dlrt\.tau is 1\.0, it should be less than 1"),
    ],
)
def test_what_contradicts_itself_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(LrsearchError, match=problem):
        parse_hyperparameters("dlrt", values)


@pytest.fixture(scope="module")
def trained() -> Iterator[Compressed]:
    """A perceptron trained from scratch on the digits."""
    torch.manual_seed(0)
    model, data = build_model({"name": "digits_mlp", "width": 128, "depth": 4}), load_data({"name": "digits"})
    task = Task(example_input=data.example_input(), splits=data)
    values = {"tau": 0.15, "start": "scratch", "lr": 0.1, "adaptive_epochs": 10, "fine_tuning_epochs": 2}
    hyperparameters, method = parse_hyperparameters("dlrt", values), load_method("dlrt")
    yield collect(method.compress(model, task, hyperparameters, {}))[1]


def test_it_learns_from_scratch_while_ranks_fall(trained: Compressed) -> None:
    history = trained.history
    assert history["train_accuracy"][-1] > history["train_accuracy"][0] + 10
    for course in history["ranks"].values():
        assert course[-1] < course[0]
        assert course[-1] <= math.ceil(1 / 0.15**2)


def test_progress_comes_with_every_step() -> None:
    seen, _ = collect(steps("dlrt", SHORT))
    assert seen == [Progress(done, 7) for done in range(1, 8)]
