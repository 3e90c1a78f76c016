"""What every registered method must hold to; a new method is tested by being registered."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrsearch.compression import apply_recipe
from lrsearch.distributions import Choice, Distribution, IntUniform, Uniform
from lrsearch.errors import BudgetUnreachableError, LrsearchError
from lrsearch.factorize import LayerShape, find_layers, layer_cost, restructure
from lrsearch.factorize.stages import max_rank, max_tucker_ranks
from lrsearch.measure.cost import count_cost
from lrsearch.methods import load_method, method_names, parse_hyperparameters
from lrsearch.methods.base import Retrains, Search, Task
from lrsearch.models import build_model
from lrsearch.recipe import Factorization, Recipe
from tests.methods.zoo import VARIANTS, Variant, collect, compress, images, labelled, make_task, parsed, steps, zoo

DENSE = Factorization(kind="dense")
PRUNING = ("ft", "pfp")
"""They remove channels: they have to trace the network, and what goes is not a matter of rank."""
UNTRAINED = {"dlrt": {"adaptive_epochs": 0, "fine_tuning_epochs": 0}}
"""What keeps a method that trains from training, so that weights are only decomposed."""
BUDGETS = [{"params": 0.8}, {"params": 0.6}, {"flops": 0.8}, {"flops": 0.6}]

pytestmark = pytest.mark.parametrize(
    "method", [*method_names(), *VARIANTS], ids=lambda method: getattr(method, "label", None)
)


def merges(method: str) -> bool:
    return isinstance(method, Variant) and "merge" in method.settings


def narrows(method: str) -> bool:
    """Whether layers lose channels, not ranks."""
    return method in PRUNING or merges(method)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_budget_is_kept_within_one_rank_step(method: str, budget: dict[str, float]) -> None:
    model = zoo()
    compressed = compress(method, {"budget": budget}, model)
    (resource, fraction), example = next(iter(budget.items())), images()
    dense, small = (getattr(count_cost(network, example), resource) for network in (model, compressed.model))
    assert small / dense <= fraction
    shapes, _ = find_layers(model, example)
    for name, factorization in compressed.recipe.layers.items():
        # What is pruned has no step of its own: channels go together with those of other layers.
        if factorization.kind not in ("dense", "pruned"):
            step = cost(shapes[name], raised(shapes[name], factorization), resource)
            assert small + step - cost(shapes[name], factorization, resource) > fraction * dense, name


def test_two_budgets_are_kept_at_once(method: str) -> None:
    """Strided layers and foldings make parameters and FLOPs differ, so that neither cap follows from the other."""
    model, budget = zoo(), {"params": 0.7, "flops": 0.6}
    small, dense = (count_cost(network, images()) for network in (compress(method, {"budget": budget}).model, model))
    for resource, fraction in budget.items():
        assert getattr(small, resource) <= fraction * getattr(dense, resource)
    assert small.flops > 0.5 * dense.flops or small.params > 0.6 * dense.params


def cost(shape: LayerShape, factorization: Factorization, resource: str) -> int:
    params, macs = layer_cost(shape, factorization)
    assert macs is not None
    return params if resource == "params" else 2 * macs


def raised(shape: LayerShape, factorization: Factorization) -> Factorization:
    """The factorization one rank higher in each branch, or the dense layer where that is no longer smaller."""
    limits: tuple[int, ...] = max_tucker_ranks(shape)
    if factorization.kind in ("svd", "messi"):
        limits = (max_rank(shape, factorization.scheme, factorization.groups),) * factorization.groups
    step = factorization.groups if factorization.kind == "tucker2" else 1
    ranks = tuple(min(rank + step, limit) for rank, limit in zip(factorization.ranks, limits, strict=True))
    higher = factorization.model_copy(update={"ranks": ranks})
    smaller = ranks != factorization.ranks and is_smaller(shape, higher)
    return higher if smaller else DENSE


def is_smaller(shape: LayerShape, factorization: Factorization) -> bool:
    small, dense = layer_cost(shape, factorization), layer_cost(shape, DENSE)
    return small.params < dense.params and (small.macs or 0) <= (dense.macs or 0)


@pytest.mark.parametrize("resource", ["params", "flops"])
def test_an_unreachable_budget_says_the_smallest_reachable_value(method: str, resource: str) -> None:
    with pytest.raises(BudgetUnreachableError, match=rf"budget\.{resource} is 1e-06") as caught:
        compress(method, {"budget": {resource: 1e-6}})
    smallest = caught.value.smallest
    model = zoo()
    small = compress(method, {"budget": {resource: smallest}}, model).model
    costs = [getattr(count_cost(network, images()), resource) for network in (small, model)]
    assert costs[0] / costs[1] == pytest.approx(smallest)
    with pytest.raises(BudgetUnreachableError):
        compress(method, {"budget": {resource: smallest * (1 - 1e-9)}})


def test_a_budget_in_flops_needs_an_input(method: str) -> None:
    with pytest.raises(LrsearchError, match=r"budget\.flops needs an example input"):
        compress(method, {"budget": {"flops": 0.5}}, task=make_task(example=False))


@pytest.mark.parametrize("values", [{}, {"budget": {"params": 0.6}}, {"budget": {"flops": 0.6}}], ids=str)
def test_weights_of_low_rank_are_compressed_without_loss(method: str, values: dict[str, Any]) -> None:
    if narrows(method):
        pytest.skip("weights of low rank do not make channels superfluous")
    model = zoo(low_rank=True)
    compressed = compress(method, {**UNTRAINED.get(method, {}), **values}, model)
    assert any(factorization.kind != "dense" for factorization in compressed.recipe.layers.values())
    x = images(4)
    torch.testing.assert_close(compressed.model.eval()(x), model(x), rtol=1e-7, atol=1e-7)


def test_a_budget_of_all_changes_nothing(method: str) -> None:
    model, x = zoo(), images(4)
    compressed = compress(method, {"budget": {"params": 1.0}}, model)
    torch.testing.assert_close(compressed.model.eval()(x), model(x), rtol=1e-7, atol=1e-7)


def test_the_dense_network_is_left_as_it_was(method: str) -> None:
    model = zoo().train()
    model.norm.eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes, random_state = [module.training for module in model.modules()], torch.get_rng_state()
    compressed = compress(method, {}, model)
    assert [module.training for module in model.modules()] == modes
    assert list(model.state_dict()) == list(state)
    assert torch.equal(torch.get_rng_state(), random_state)
    for parameter in compressed.model.parameters():
        with torch.no_grad():
            parameter.fill_(0.5)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("values", [{}, {"budget": {"params": 0.5}}], ids=str)
def test_recipe_and_weights_rebuild_the_network(method: str, values: dict[str, Any], tmp_path: Path) -> None:
    compressed = compress(method, values)
    compressed.recipe.save(tmp_path / "recipe.json")
    recipe = Recipe.load(tmp_path / "recipe.json")
    assert recipe == compressed.recipe
    assert recipe.method == method
    rebuilt = zoo()
    restructure(rebuilt, recipe.layers)
    rebuilt.load_state_dict(compressed.model.state_dict(), strict=True)
    x = images(3)
    assert torch.equal(rebuilt.eval()(x), compressed.model.eval()(x))


@pytest.mark.parametrize("values", [{}, {"budget": {"params": 0.5}}], ids=str)
def test_the_recipe_applied_to_the_same_weights_is_the_same_network(method: str, values: dict[str, Any]) -> None:
    compressed = compress(method, {**UNTRAINED.get(method, {}), **values})
    if merges(method):
        with pytest.raises(LrsearchError, match="how many channels layer 'point' keeps but not which"):
            apply_recipe(compressed.recipe, zoo(), example_input=images())
        return
    again = apply_recipe(compressed.recipe, zoo(), example_input=images())
    assert again.recipe == compressed.recipe
    x = images(3)
    torch.testing.assert_close(again.model(x), compressed.model.eval()(x), rtol=1e-9, atol=1e-9)


def test_the_recipe_names_the_architecture(method: str) -> None:
    architecture = {"name": "zoo", "width": 12}
    named = compress(method, {}, task=replace(make_task(), architecture=architecture))
    assert named.recipe.architecture == architecture


@pytest.mark.parametrize("values", [{}, {"budget": {"flops": 0.6}}], ids=str)
@pytest.mark.parametrize("example", [True, False])
def test_every_layer_is_smaller_or_dense_for_a_reason(method: str, values: dict[str, Any], example: bool) -> None:
    if "budget" in values and not example:
        values = {"budget": {"params": 0.6}}
    model, task = zoo(), make_task(example=example)
    if method in PRUNING and not example:
        with pytest.raises(LrsearchError, match=r"needs an example input .* to trace the network"):
            compress(method, values, model, task)
        return
    recipe = compress(method, values, model, task).recipe
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert [name for name in recipe.layers if name in names] == names
    assert {recipe.layers[name].kind for name in recipe.layers.keys() - set(names)} <= {"pruned"}
    shapes, _ = find_layers(model, images() if example else None)
    for name, factorization in recipe.layers.items():
        if name not in names:
            continue
        if factorization.kind == "dense":
            assert factorization.reason, name
        else:
            assert is_smaller(shapes[name], factorization), name
    assert recipe.layers["unused"].kind == "dense" if example else True
    if narrows(method):
        return
    assert recipe.layers["tiny"].reason == "no factorization makes it smaller"
    # Of the foldings, only those that separate the kernel make a depthwise layer smaller.
    depthwise = recipe.layers["depthwise"]
    assert depthwise.kind == "dense" or depthwise.scheme in (1, 2)
    if set(getattr(load_method(method), "schemes", (0,))) == {0}:
        assert depthwise.reason == "no factorization makes it smaller"


def test_every_kind_of_layer_is_factorized_where_the_budget_asks_for_it(method: str) -> None:
    with pytest.raises(BudgetUnreachableError) as caught:
        compress(method, {"budget": {"params": 1e-6}})
    recipe = compress(method, {"budget": {"params": caught.value.smallest}}).recipe
    kinds = ("grouped", "point", "strided", "dilated", "reflecting", "same", "strided_point", "hidden", "head")
    assert {name: recipe.layers[name].reason for name in kinds} == dict.fromkeys(kinds)


def test_same_seed_same_network(method: str) -> None:
    first, second = (compress(method, {}, task=make_task(seed=3)) for _ in range(2))
    assert first.recipe == second.recipe
    states = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_progress_is_told_to_the_end(method: str) -> None:
    seen, _ = collect(steps(method, {}))
    assert [progress.done for progress in seen] == list(range(1, len(seen) + 1))
    assert {progress.total for progress in seen} == {len(seen)}


def test_progress_is_told_even_where_nothing_is_to_be_done(method: str) -> None:
    seen, _ = collect(
        steps(method, {"budget": {"params": 1.0}}, nn.Sequential(nn.Flatten(), nn.Linear(432, 1).double()))
    )
    assert seen


def test_statistics_are_plain_tensors_that_a_file_can_keep(method: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, task = zoo(), make_task()
    chosen = load_method(method)
    save_file(chosen.statistics(model, task), tmp_path / "statistics.safetensors")
    kept = load_file(tmp_path / "statistics.safetensors")
    _, compressed = collect(chosen.compress(model, task, parsed(method, {}), kept))
    assert compressed.recipe == compress(method, {}).recipe


def test_what_retraining_fixes_are_some_weights_of_the_network(method: str) -> None:
    chosen = load_method(method)
    if not isinstance(chosen, Retrains):
        pytest.skip("it is retrained like any other network")
    compressed = compress(method, {})
    retraining = chosen.retraining(compressed, zoo(), parsed(method, {}))
    weights = {name for name, _ in compressed.model.named_parameters()}
    assert all(set(retraining.frozen(epoch)) < weights for epoch in (1, 2))


@pytest.mark.parametrize("end", [min, max])
def test_every_value_of_the_default_search_is_valid(method: str, end: Callable[..., Any]) -> None:
    fields = load_method(method).Hyperparameters.model_fields
    searched = {
        name: search.distribution
        for name, info in fields.items()
        for search in info.metadata
        if isinstance(search, Search)
    }
    assert searched, "a search of the method without settings has to vary something"
    for values in draws(searched, end):
        parse_hyperparameters(method, values)


def draws(searched: Mapping[str, Any], end: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """Every searched value at an end of its range, and each choice of the others in turn."""
    values = {name: extreme(value, end) for name, value in searched.items()}
    yield values
    for name, value in searched.items():
        if isinstance(value, Choice):
            yield from ({**values, name: choice} for choice in value.values)


def extreme(value: Distribution | Mapping[str, Any], end: Callable[..., Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: extreme(inner, end) for key, inner in value.items()}
    if isinstance(value, Choice):
        return value.values[0]
    assert isinstance(value, Uniform | IntUniform)
    assert math.isfinite(value.low)
    assert 0 < value.low < value.high
    return end(value.low, value.high)


def test_smaller_budgets_make_a_real_network_smaller(method: str) -> None:
    model = build_model({"name": "digits_resnet", "width": 16})
    inputs = torch.randn(8, 1, 8, 8)
    task = Task(example_input=inputs[:1], splits=labelled(inputs))
    small, large = (
        count_cost(compress(method, {"budget": {"params": fraction}}, model, task).model, None).params
        for fraction in (0.3, 0.6)
    )
    assert small < large < count_cost(model, None).params


@pytest.mark.parametrize("values", [{}, {"budget": {"params": 0.5}}], ids=str)
def test_hyperparameters_survive_json(method: str, values: dict[str, Any]) -> None:
    parsed = parse_hyperparameters(method, values)
    again = parse_hyperparameters(method, json.loads(parsed.model_dump_json(exclude_none=True)))
    assert again == parsed


def test_weights_that_are_not_finite_are_named(method: str) -> None:
    model = zoo()
    with torch.no_grad():
        model.dilated.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(LrsearchError, match=r"'dilated'.*not finite"):
        compress(method, {"budget": {"params": 0.3}}, model)
