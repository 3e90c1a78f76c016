"""Tucker-2 candidates against networks of explicit weights, and their allocation against exhaustive search."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import LayerShape, find_layers, layer_cost
from lrsearch.factorize.stages import max_rank, max_tucker_ranks
from lrsearch.factorize.svd import svd_weights
from lrsearch.factorize.tucker import tucker2_weights
from lrsearch.measure.cost import count_cost
from lrsearch.methods.base import Task
from lrsearch.methods.one_shot.candidates import svd
from lrsearch.methods.one_shot.tucker2 import tucker_errors, tucker_family
from lrsearch.recipe import Factorization
from tests.methods.zoo import compress

DENSE = Factorization(kind="dense")


def reconstructed(weight: Tensor, groups: int, r1: int, r2: int) -> Tensor:
    first, core, last = tucker2_weights(weight, groups, r1, r2)
    parts = zip(first.chunk(groups), core.chunk(groups), last.chunk(groups), strict=True)
    return torch.cat([torch.einsum("qc,rqhw,sr->schw", a[..., 0, 0], b, c[..., 0, 0]) for a, b, c in parts])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 5),
    st.integers(2, 5),
    st.sampled_from([(3, 3), (1, 3), (2, 5)]),
    st.integers(1, 2),
    st.integers(1, 2),
    st.data(),
)
def test_every_candidate_costs_and_errs_as_its_factorization_does(
    outputs: int, inputs: int, kernel: tuple[int, int], groups: int, stride: int, data: st.DataObject
) -> None:
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    layer = nn.Conv2d(inputs * groups, outputs * groups, kernel, stride, groups=groups, dtype=torch.float64)
    weight = layer.weight.detach()
    shape = find_layers(nn.Sequential(layer), torch.randn(1, inputs * groups, 9, 9, dtype=torch.float64))[0]["0"]
    unfoldings = [[block.transpose(0, 1).flatten(1), block.flatten(1)] for block in weight.chunk(groups)]
    families = {
        error: tucker_family(shape, tucker_errors(weight, groups, error), error) for error in ("energy", "proxy")
    }
    for error, family in families.items():
        for index in range(len(family.errors)):
            found = family.member(index)
            cost = layer_cost(shape, found)
            assert family.sizes[index].tolist() == [cost.params, cost.macs]
            lost = float((weight - reconstructed(weight, groups, *found.ranks)).norm() / weight.norm())
            if error == "proxy":
                sigma = [[torch.linalg.svdvals(matrix) for matrix in pair] for pair in unfoldings]
                dropped = [
                    s[rank:].max() for pair in sigma for s, rank in zip(pair, found.ranks, strict=True) if rank < len(s)
                ]
                lost = float(max(dropped, default=torch.zeros(()))) / max(float(pair[1].max()) for pair in sigma)
            assert family.errors[index] == pytest.approx(lost, abs=1e-6)


@pytest.mark.parametrize("budget", [{"params": 0.5}, {"params": 0.35}, {"flops": 0.4}, {"params": 0.5, "flops": 0.4}])
@pytest.mark.parametrize("rule", ["max", "sum"])
def test_kinds_compete_in_one_allocation_as_by_exhaustive_search(rule: str, budget: dict[str, float]) -> None:
    """Every pair of factorizations of two layers, their errors from explicit weights."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1, bias=False)
    ).double()
    task = Task(example_input=torch.randn(1, 3, 8, 8, dtype=torch.float64))
    shapes, _ = find_layers(model, task.example_input)
    options = {name: every(shape, model.get_submodule(name).get_parameter("weight")) for name, shape in shapes.items()}
    dense = {name: layer_cost(shape, DENSE) for name, shape in shapes.items()}
    best = float("inf")
    for choice in itertools.product(*(options[name].items() for name in shapes)):
        costs = [layer_cost(shape, each) for shape, (each, _) in zip(shapes.values(), choice, strict=True)]
        kept = {
            "params": sum(c.params for c in costs) / sum(c.params for c in dense.values()),
            "flops": sum(c.macs or 0 for c in costs) / sum(c.macs or 0 for c in dense.values()),
        }
        if all(kept[resource] <= fraction for resource, fraction in budget.items()):
            best = min(best, objective(rule, [error for _, error in choice]))
    values = {"budget": budget, "rule": rule, "error": "energy", "kinds": ["svd", "tucker2"], "max_subspaces": 3}
    compressed = compress("alds_plus", values, model, task)
    found = objective(rule, [options[name][plain(each)] for name, each in compressed.recipe.layers.items()])
    step = 0.0 if rule == "max" else max(1 - min(errors.values()) for errors in options.values())
    assert best - 1e-9 <= found <= best + step + 1e-9
    if rule == "max":
        single = [compress("alds_plus", {**values, "kinds": [kind]}, model, task).recipe for kind in ("svd", "tucker2")]
        assert found <= min(max(options[n][plain(f)] for n, f in recipe.layers.items()) for recipe in single) + 1e-9


def objective(rule: str, errors: list[float]) -> float:
    return max(errors) if rule == "max" else sum(errors)


def plain(factorization: Factorization) -> Factorization:
    return factorization.model_copy(update={"reason": None})


def every(shape: LayerShape, weight: Tensor) -> dict[Factorization, float]:
    """Factorization -> relative error, of all that make the layer smaller."""
    weight = weight.detach()
    found = {DENSE: 0.0}
    for scheme, k in itertools.product(range(4), [k for k in (1, 2, 3) if shape.in_per_group % k == 0]):
        for rank in range(1, max_rank(shape, scheme, k) + 1):
            first, second = svd_weights(weight, 1, scheme, k, rank)
            whole = torch.stack([
                torch.einsum("rcab,srde->scadbe", a, b).reshape(len(weight), -1, *shape.kernel)
                for a, b in zip(first.chunk(k), second.chunk(k, 1), strict=True)
            ], 1).flatten(1, 2)  # fmt: skip
            found[svd(scheme, k, rank)] = float((weight - whole).norm() / weight.norm())
    for ranks in itertools.product(*(range(1, limit + 1) for limit in max_tucker_ranks(shape))):
        error = float((weight - reconstructed(weight, 1, *ranks)).norm() / weight.norm())
        found[Factorization(kind="tucker2", ranks=ranks)] = error
    whole_cost = layer_cost(shape, DENSE)
    costs = {each: layer_cost(shape, each) for each in found}
    return {
        each: error
        for each, error in found.items()
        if each == DENSE
        or (costs[each].params < whole_cost.params and (costs[each].macs or 0) <= (whole_cost.macs or 0))
    }


def test_tucker_alone_leaves_points_dense_and_keeps_its_budget() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 1)).eval()
    recipe = compress("alds_plus", {"budget": {"params": 0.7}, "kinds": ["tucker2"]}, model, Task()).recipe
    assert [each.kind for each in recipe.layers.values()] == ["tucker2", "dense"]
    again = compress("alds_plus", {"budget": {"params": 0.7}, "kinds": ["tucker2"]}, model, Task()).model
    assert count_cost(again, None).params <= 0.7 * count_cost(model, None).params


@pytest.mark.parametrize("error", ["theorem1", "sum_bound"])
def test_bounds_that_tucker_has_not_are_refused(error: str) -> None:
    with pytest.raises(LrsearchError, match=f"expected error proxy or energy where kinds holds tucker2, got {error}"):
        compress("alds_plus", {"error": error, "kinds": ["tucker2"]})
