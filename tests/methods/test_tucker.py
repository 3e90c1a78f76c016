import math
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrsearch.factorize import LayerShape, find_layers, layer_cost, restructure
from lrsearch.factorize.stages import max_tucker_ranks
from lrsearch.measure.cost import count_cost
from lrsearch.methods.base import Task
from lrsearch.methods.tucker import vanilla
from lrsearch.models import build_model
from lrsearch.recipe import Factorization
from tests.methods.zoo import compress, images, zoo

DENSE = Factorization(kind="dense")


@pytest.mark.parametrize(
    ("shape", "ranks"),
    [
        (LayerShape(512, 512, (3, 3)), (309, 309)),
        (LayerShape(64, 64, (3, 3)), (38, 38)),
        (LayerShape(64, 64), (16,)),
        (LayerShape(256, 64), (25,)),
        (LayerShape(512, 2048), (204,)),
        (LayerShape(1000, 2048), (335,)),
    ],
)
def test_ranks_at_alpha_2_are_the_published_ones(shape: LayerShape, ranks: tuple[int, ...]) -> None:
    assert vanilla(shape, alpha=2.0).ranks == ranks


@pytest.mark.parametrize(("name", "millions"), [("resnet50", 12.754), ("resnet101", 22.214), ("resnet152", 30.008)])
def test_networks_at_alpha_2_have_the_published_sizes(name: str, millions: float) -> None:
    """Every layer but the stem, the convolutions of the shortcuts and the classifier included."""
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    shapes, _ = find_layers(model)
    del shapes["conv1"]
    saved = sum(
        layer_cost(shape, DENSE).params - layer_cost(shape, vanilla(shape, 2.0)).params for shape in shapes.values()
    )
    assert (count_cost(model, None).params - saved) / 1e6 == pytest.approx(millions, abs=5e-4)


@settings(deadline=None)
@given(
    st.integers(4, 200),
    st.integers(4, 200),
    st.sampled_from([(1, 1), (3, 3), (5, 5), (1, 7)]),
    st.floats(1.1, 8.0),
)
def test_each_rank_is_the_largest_that_is_alpha_times_smaller(
    inputs: int, outputs: int, kernel: tuple[int, int], alpha: float
) -> None:
    shape = LayerShape(outputs, inputs, kernel)
    found = vanilla(shape, alpha)
    target = layer_cost(shape, DENSE).params / alpha
    if found.kind == "dense" or found.ranks[0] in (1, *{min(inputs, outputs), inputs}):
        return
    assert layer_cost(shape, found).params <= target
    if max(found.ranks) + 1 <= min(inputs, outputs):
        higher = found.model_copy(update={"ranks": tuple(rank + 1 for rank in found.ranks)})
        assert layer_cost(shape, higher).params > target


def test_beta_sets_the_ratio_of_the_ranks() -> None:
    r1, r2 = vanilla(LayerShape(512, 512, (3, 3)), alpha=2.0, beta=1.5).ranks
    assert r2 == math.floor(1.5 * r1)
    assert layer_cost(LayerShape(512, 512, (3, 3)), Factorization(kind="tucker2", ranks=(r1, r2))).params == (
        pytest.approx(512 * 512 * 9 / 2, rel=0.01)
    )


def test_only_the_last_linear_layer_is_the_classifier() -> None:
    model = build_model({"name": "digits_mlp"})
    included, left_out = (
        compress("tucker", {"classifier": classifier, "alpha": 2}, model, Task()).recipe.layers
        for classifier in (True, False)
    )
    *others, last = included
    assert included[last].kind == "svd"
    assert "classifier" in (left_out[last].reason or "")
    assert {name: included[name] for name in others} == {name: left_out[name] for name in others}


def test_only_the_first_convolution_is_the_stem() -> None:
    with_stem, without = (compress("tucker", {"stem": stem, "alpha": 1.5}).recipe.layers for stem in (True, False))
    assert with_stem["stem"].kind == "tucker2"
    assert "stem" in (without["stem"].reason or "")
    assert {name: f for name, f in with_stem.items() if name != "stem"} == {
        name: f for name, f in without.items() if name != "stem"
    }


def test_only_the_convolutions_of_shortcuts_are_downsampling() -> None:
    model = build_model({"name": "digits_resnet", "width": 8})
    included, left_out = (
        compress("tucker", {"downsample": downsample, "alpha": 1.5}, model, Task()).recipe.layers
        for downsample in (True, False)
    )
    shortcuts = {"4.downsample.0", "5.downsample.0"}
    assert {included[name].kind for name in shortcuts} == {"svd"}
    assert all("shortcut" in (left_out[name].reason or "") for name in shortcuts)
    assert {name: form for name, form in included.items() if name not in shortcuts} == {
        name: form for name, form in left_out.items() if name not in shortcuts
    }


def test_kernels_become_tucker_chains_and_points_become_pairs() -> None:
    layers = compress("tucker", {}).recipe.layers
    kinds = {name: layers[name].kind for name in ("strided", "grouped", "point", "hidden")}
    assert kinds == {"strided": "tucker2", "grouped": "tucker2", "point": "svd", "hidden": "svd"}


def test_alpha_defaults_to_2() -> None:
    assert compress("tucker", {}).recipe == compress("tucker", {"alpha": 2.0}).recipe


def test_with_a_budget_all_layers_shrink_alike() -> None:
    """Large equal layers differ by one rank at most, since the leftover is spent layer by layer."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Conv2d(32, 32, 3, padding=1) for _ in range(6)])
    task = Task(example_input=torch.randn(1, 32, 8, 8))
    layers = compress("tucker", {"budget": {"params": 0.5}}, model, task).recipe.layers
    ranks = [layers[str(i)].ranks[0] for i in range(1, 6)]
    assert max(ranks) - min(ranks) <= 1


def test_refining_brings_the_network_closer_to_the_dense_one() -> None:
    model = zoo()
    weights = {}
    for refine in (False, True):
        small = compress("tucker", {"alpha": 2.0, "refine": refine}, model).model.get_submodule("strided")
        with torch.no_grad():
            impulse = torch.eye(12 * 25, dtype=torch.float64).reshape(-1, 12, 5, 5)
            weights[refine] = (small(impulse) - model.strided(impulse)).norm()
    assert weights[True] < weights[False]


def test_same_ranks_with_or_without_an_example_input() -> None:
    with_input, without = (
        compress("tucker", {}, task=Task(example_input=example)).recipe.layers for example in (images(), None)
    )
    assert {n: f for n, f in with_input.items() if n != "unused"} == {n: f for n, f in without.items() if n != "unused"}


@settings(deadline=None)
@given(
    st.integers(4, 200),
    st.integers(4, 200),
    st.sampled_from([2, 3, 4]),
    st.floats(1.1, 8),
    st.sampled_from([0.5, 1, 2]),
)
def test_branches_divide_both_ranks_which_are_the_largest_that_fit(
    inputs: int, outputs: int, branches: int, alpha: float, beta: float
) -> None:
    shape = LayerShape(outputs, inputs, (3, 3))
    found = vanilla(shape, alpha, beta, branches)
    if found.kind == "dense" or found.groups == 1:
        return
    assert found.groups == branches and not any(rank % branches for rank in found.ranks)
    target, limits = inputs * outputs * 9 / alpha, max_tucker_ranks(shape)
    assert layer_cost(shape, found).params <= target
    higher = found.model_copy(update={"ranks": tuple(rank + 2 * branches for rank in found.ranks)})
    if all(rank <= limit for rank, limit in zip(higher.ranks, limits, strict=True)) and beta == 1:
        assert layer_cost(shape, higher).params > target


@pytest.mark.parametrize("values", [{"alpha": 2.0}, {"budget": {"params": 0.6}}, {"budget": {"flops": 0.6}}], ids=str)
def test_branched_networks_keep_their_budget_and_rebuild(values: dict[str, Any]) -> None:
    model = zoo()
    compressed = compress("tucker", {**values, "branches": 2}, model)
    branched = [form for form in compressed.recipe.layers.values() if form.kind == "tucker2" and form.groups == 2]
    assert branched and all(rank % 2 == 0 for form in branched for rank in form.ranks)
    if (budget := values.get("budget")) is not None:
        (resource, fraction), x = next(iter(budget.items())), images()
        small, dense = (getattr(count_cost(network, x), resource) for network in (compressed.model, model))
        assert fraction - 0.1 < small / dense <= fraction
    rebuilt = zoo()
    restructure(rebuilt, compressed.recipe.layers)
    rebuilt.load_state_dict(compressed.model.state_dict())
    assert torch.equal(rebuilt.eval()(images(2)), compressed.model.eval()(images(2)))
