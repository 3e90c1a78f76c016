import pytest
import torch
from torch import nn

from lrsearch.factorize import find_layers
from lrsearch.methods import load_method
from lrsearch.methods.base import Task
from lrsearch.recipe import Recipe
from tests.methods.zoo import compress, make_task, zoo


def proxy_error(model: nn.Module, recipe: Recipe) -> float:
    """The objective by its definition, from full SVDs of explicit channel slices."""
    largest = 0.0
    for name, factorization in recipe.layers.items():
        if factorization.kind == "dense":
            continue
        weight = model.get_submodule(name).get_parameter("weight").detach().double()
        groups = int(getattr(model.get_submodule(name), "groups", 1))
        blocks = [block.flatten(1) for block in weight.chunk(groups)]
        norm = max(float(torch.linalg.matrix_norm(block, 2)) for block in blocks)
        slices = [
            part.flatten(1) for block in weight.chunk(groups) for part in block.chunk(factorization.groups, dim=1)
        ]
        for part in slices:
            values = torch.linalg.svdvals(part)[factorization.ranks[0] :]
            largest = max(largest, *(values / norm).tolist(), 0.0)
    return largest


@pytest.mark.parametrize("budget", [{"params": 0.4}, {"params": 0.7}, {"flops": 0.5}], ids=str)
def test_the_exact_solver_is_never_worse_than_the_papers(budget: dict[str, float]) -> None:
    model = zoo()
    exact, paper = (compress("alds", {"budget": budget, "rule": rule}, model).recipe for rule in ("max", "alternating"))
    assert proxy_error(model, exact) <= proxy_error(model, paper) + 1e-9


def test_less_budget_never_means_less_error() -> None:
    model = zoo()
    recipe = compress("alds", {"budget": {"params": 0.5}}, model).recipe
    error = proxy_error(model, recipe)
    smaller = compress("alds", {"budget": {"params": 0.45}}, model).recipe
    assert proxy_error(model, smaller) >= error


def test_subspaces_can_be_limited() -> None:
    free, limited = (
        compress("alds", {"budget": {"params": 0.4}, "max_subspaces": limit}).recipe for limit in (None, 2)
    )
    assert max(factorization.groups for factorization in free.layers.values()) > 2
    assert max(factorization.groups for factorization in limited.layers.values()) <= 2


@pytest.mark.parametrize(("rule", "relative"), [("max", "svd_error"), ("constant", "svd"), ("energy", "svd_energy")])
def test_with_one_subspace_each_rule_makes_it_a_relative(rule: str, relative: str) -> None:
    budget = {"params": 0.5}
    own = compress("alds", {"budget": budget, "rule": rule, "max_subspaces": 1}).recipe
    assert own.layers == compress(relative, {"budget": budget}).recipe.layers


def test_the_sum_of_errors_can_be_made_small_instead_of_the_largest() -> None:
    recipes = [
        compress("alds", {"budget": {"params": 0.5}, "rule": rule, "error": "energy", "max_subspaces": 1}).recipe
        for rule in ("sum", "max")
    ]
    totals = [sum(relative_losses(recipe)) for recipe in recipes]
    largest = [max(relative_losses(recipe)) for recipe in recipes]
    assert totals[0] < totals[1]
    assert largest[1] < largest[0]


def relative_losses(recipe: Recipe) -> list[float]:
    """||W - What||_F / ||W||_F of each layer, by full SVDs."""
    losses = []
    for name, factorization in recipe.layers.items():
        if factorization.kind == "svd":
            layer = zoo().get_submodule(name)
            blocks = layer.get_parameter("weight").detach().chunk(int(getattr(layer, "groups", 1)))
            values = torch.stack([torch.linalg.svdvals(block.flatten(1)) for block in blocks])
            dropped = values[:, factorization.ranks[0] :]
            losses.append(float(dropped.norm() / values.norm()))
    return losses


def test_alternating_draws_from_the_task_alone() -> None:
    values = {"budget": {"params": 0.4}, "rule": "alternating", "n_seeds": 1}
    recipes = []
    for seed in range(6):
        torch.manual_seed(seed)
        recipes.append(compress("alds", values, task=make_task(seed=seed)).recipe)
        assert recipes[-1] == compress("alds", values, task=make_task(seed=seed)).recipe
    assert any(recipe != recipes[0] for recipe in recipes)


def test_statistics_hold_each_layer_for_each_useful_number_of_subspaces() -> None:
    model = zoo()
    statistics = load_method("alds").statistics(model, make_task())
    assert [key for key in statistics if key.startswith("strided/")] == [f"strided/0/{k}" for k in (1, 2, 3, 4, 6, 12)]
    assert statistics["grouped/0/3"].shape == (2, 3, 12)
    (whole,) = (key for key in statistics if key.startswith("depthwise"))  # which other foldings make smaller
    assert whole == "depthwise/0/1"
    expected = torch.linalg.svdvals(model.strided.weight.detach().flatten(1))
    torch.testing.assert_close(statistics["strided/0/1"].flatten(), expected, rtol=0, atol=1e-7)


def test_a_vision_transformer_keeps_its_attention_and_loses_the_rest() -> None:
    model = tiny_transformer()
    task = Task(example_input=torch.randn(1, 6, 16))
    compressed = compress("alds", {"budget": {"flops": 0.8}}, model, task)
    layers, dense = find_layers(model, task.example_input)
    assert {"mlp.0", "mlp.2"} == set(layers)
    assert "MultiheadAttention" in dense["attention.out_proj"]
    assert compressed.model(torch.randn(2, 6, 16)).shape == (2, 6, 16)


def tiny_transformer() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.mlp(self.attention(x, x, x, need_weights=False)[0])
            return y

    torch.manual_seed(0)
    return Block().eval()
