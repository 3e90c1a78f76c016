"""The filters that ft and pfp keep, by their definitions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lrsearch
from lrsearch.errors import LrsearchError
from lrsearch.measure.cost import count_cost
from lrsearch.methods import load_method
from lrsearch.methods.base import Task
from lrsearch.methods.pruning.channels import find_coupled, without
from lrsearch.models import build_model
from tests.methods.zoo import compress, images, make_task, zoo

METHODS = ("ft", "pfp")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [{"params": 0.5}, {"flops": 0.4}, {"params": 0.6, "flops": 0.5}], ids=str)
def test_less_than_one_coupled_channel_of_the_budget_is_left_over(method: str, budget: dict[str, float]) -> None:
    model, example = zoo(), images()
    small, dense = (count_cost(each, example) for each in (compress(method, {"budget": budget}, model).model, model))
    units = []
    for each in find_coupled(model, example):
        first = each.removable(torch.zeros(each.units))[:1]
        less = count_cost(without(model, example, {each.root: each.channels(first)}), example)
        units.append((dense.params - less.params, (dense.flops or 0) - (less.flops or 0)))
    spare = {
        "params": (budget.get("params", 9) * dense.params - small.params) / max(unit[0] for unit in units),
        "flops": (budget.get("flops", 9) * (dense.flops or 0) - (small.flops or 0)) / max(unit[1] for unit in units),
    }
    assert min(spare.values()) < 1
    assert min(spare.values()) >= 0


def test_ft_keeps_the_filters_of_the_largest_norm_the_same_fraction_everywhere() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 20, 3), nn.ReLU(), nn.Conv2d(20, 40, 3), nn.ReLU(), nn.Flatten(), nn.Linear(640, 10)
    )
    task = Task(example_input=torch.randn(1, 1, 8, 8))
    found = compress("ft", {"budget": {"params": 0.3}}, model, task).model
    kept = []
    for name in ("0", "2"):
        dense, small = (each.get_submodule(name).get_parameter("weight") for each in (model, found))
        norms = dense.flatten(1).norm(dim=1)
        own, every = (each.get_submodule(name).get_parameter("bias").tolist() for each in (found, model))
        remaining = [bias in own for bias in every]
        assert norms[remaining].min() > norms[[not each for each in remaining]].max()
        kept.append(len(small) / len(dense))
    assert kept[0] == pytest.approx(kept[1], abs=0.05)


def test_filters_of_zeros_go_first_and_nothing_is_lost() -> None:
    model = zoo()
    with torch.no_grad():
        for name in ("strided", "grouped"):
            layer = model.get_submodule(name)
            for parameter in layer.parameters():
                for group in parameter.chunk(int(layer.groups)):  # type: ignore[arg-type]
                    group[: len(group) // 2] = 0
    kept = compress("ft", {"budget": {"params": 0.8}}, model).model.get_submodule("strided").get_parameter("weight")
    scored = {each.root: load_method("ft").scores(model, each, {}) for each in find_coupled(model, images())}  # type: ignore[attr-defined]
    assert {name: int((values == 0).sum()) for name, values in scored.items() if (values == 0).any()} == {
        "strided": 6, "grouped": 6,
    }  # fmt: skip
    assert 6 < len(kept) < 12
    assert int((kept.flatten(1).norm(dim=1) == 0).sum()) == len(kept) - 6
    dead = {each.root: each.channels(range(6)) for each in find_coupled(model, images()) if each.root in scored}
    dead = {name: channels for name, channels in dead.items() if name in ("strided", "grouped")}
    x = images(3)
    torch.testing.assert_close(without(model, images(), dead)(x), model(x))


def test_pfp_leaves_as_many_as_are_expected_among_the_draws() -> None:
    """Against random draws, and where the sum of sensitivities is larger, more."""
    pfp = load_method("pfp")
    scores = torch.tensor([0.9, 0.5, 0.1, 0.05, 0.3, 0.3], dtype=torch.float64)
    sizes = np.linspace(0, 1, 200)
    left = [pfp.left(scores, size) for size in sizes]  # type: ignore[attr-defined]
    assert left == sorted(left)
    assert (left[0], left[-1]) == (1, 6)
    rng = np.random.default_rng(0)
    probabilities = (scores / scores.sum()).numpy()
    for size, expected in list(zip(sizes, left, strict=True))[40:70:6]:
        draws = float(scores.sum()) * 1e-2 * 1e10**size
        counts = [len(set(rng.choice(6, max(1, round(draws)), p=probabilities))) for _ in range(500)]
        if draws > 5:
            assert expected == pytest.approx(np.mean(counts), abs=0.65)
    assert pfp.left(scores.repeat(2), 0.3) > pfp.left(scores, 0.3)  # type: ignore[attr-defined]


def test_pfp_looks_at_what_is_read_not_at_the_filters() -> None:
    """The last layer reads only the first half of the hidden units."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 4))
    with torch.no_grad():
        model[2].weight[:, 5:] = 0
        model[0].bias.abs_()
    inputs = torch.randn(64, 8)
    for calibration in (None, [(inputs, torch.zeros(64))]):
        task = Task(example_input=torch.randn(1, 8), calibration=calibration)
        kept = compress("pfp", {"budget": {"params": 0.55}}, model, task)
        assert kept.recipe.layers["0"].ranks[1] == 5
        torch.testing.assert_close(kept.model(inputs), model(inputs))


@pytest.mark.parametrize("method", METHODS)
def test_batch_norms_and_coupled_shortcuts_become_smaller_together(method: str) -> None:
    model = build_model({"name": "digits_resnet", "width": 8})
    task = replace(make_task(), example_input=torch.randn(1, 1, 8, 8))
    recipe = compress(method, {"budget": {"params": 0.3}}, model, task).recipe
    left = {name: factorization.ranks for name, factorization in recipe.layers.items()}
    for block in ("4", "5"):
        outputs = left[f"{block}.conv2"][1]
        assert left[f"{block}.downsample.0"][1] == outputs
        assert left[f"{block}.downsample.1"] == left[f"{block}.bn2"] == (outputs,)
    assert left["8"][0] == left["5.conv2"][1]


@pytest.mark.parametrize("method", METHODS)
def test_batch_norm_is_estimated_anew_and_all_of_it_saved(method: str, tmp_path: Path) -> None:
    model = build_model({"name": "digits_resnet", "width": 8})
    data = [(torch.randn(16, 1, 8, 8) + shift, torch.zeros(16)) for shift in (0, 1)]
    result = lrsearch.compress(model, method, {"params": 0.4}, data)
    assert result.report["recalibrated"]
    assert result.model.get_submodule("1").get_buffer("running_mean").abs().max() > 0
    result.save(tmp_path)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(lrsearch.rebuild(tmp_path, model=model)(x), result.model(x))


@pytest.mark.parametrize("method", METHODS)
def test_what_pruning_cannot_do_is_one_sentence(method: str) -> None:
    with pytest.raises(LrsearchError, match=r"budget\.latency is for factorized layers"):
        compress(method, {"budget": {"latency": 0.5}})
