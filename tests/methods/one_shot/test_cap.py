import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lrsearch.allocate import Candidates
from lrsearch.errors import BudgetUnreachableError, LrsearchError
from lrsearch.factorize import find_layers
from lrsearch.measure.cost import count_cost
from lrsearch.methods.base import Budget, Task
from lrsearch.methods.one_shot.cap import Cap, Caps, make_caps
from tests.methods.one_shot.clockwork import PerWeight, predicted
from tests.methods.zoo import compress, images, zoo

TABLE = [Candidates(np.array([0.0, 1.0]), np.array([100, 10]), np.array([0, 1]))]


def caps(**resources: tuple[float, int, int]) -> Caps:
    """Resource -> (fraction, total, fixed)."""
    return Caps(tuple(Cap(resource, *values) for resource, values in resources.items()))


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


@given(st.floats(1e-9, 1), st.integers(1, 10**12))
def test_what_is_allowed_never_exceeds_the_fraction_and_misses_it_by_less_than_one(fraction: float, total: int) -> None:
    allowed = Cap("params", fraction, total, 0).allowed
    assert allowed / total <= fraction
    assert allowed > fraction * total * (1 - 1e-15) - 1


@pytest.mark.parametrize(("resource", "fixed"), [("params", 4 + 8 + 5), ("flops", 0)])
def test_what_no_layer_can_change_is_set_aside(resource: str, fixed: int) -> None:
    model, task = network(), Task(example_input=torch.randn(1, 2, 4, 4))
    layers, _ = find_layers(model, task.example_input)
    (cap,) = make_caps(model, layers, Budget.model_validate({resource: 0.5}), task).caps
    assert cap.fixed == fixed
    assert cap.total == getattr(count_cost(model, task.example_input), resource)


def test_the_smallest_fraction_can_be_asked_for() -> None:
    """The fixed part counts: 20 + 10 of 120."""
    with pytest.raises(BudgetUnreachableError, match=r"budget\.params is 0\.1, but .* is 0\.25$") as caught:
        caps(params=(0.1, 120, 20)).allocate(TABLE, "max")
    assert caps(params=(caught.value.smallest, 120, 20)).allocate(TABLE, "max") == [1]


@given(st.integers(1, 1000), st.integers(0, 1000))
def test_the_smallest_fraction_is_reachable_whatever_the_rounding(total: int, fixed: int) -> None:
    total += fixed + 100
    with pytest.raises(BudgetUnreachableError) as caught:
        caps(params=(1e-12, total, fixed)).allocate(TABLE, "max")
    assert caps(params=(caught.value.smallest, total, fixed)).allocate(TABLE, "max") == [1]


def test_a_network_that_exceeds_its_budget_after_all_is_not_handed_out() -> None:
    model, task = network(), Task(example_input=torch.randn(1, 2, 4, 4))
    caps(params=(1.0, count_cost(model, None).params, 0)).verify(model, task)
    with pytest.raises(LrsearchError, match="more than the budget"):
        caps(params=(1.0, count_cost(model, None).params - 1, 0)).verify(model, task)


def test_flops_cannot_be_verified_without_counting_them() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x) + self.inner(x)
            return y

    task = Task(example_input=torch.randn(1, 2, 4, 4))
    flops = count_cost(network(), task.example_input).flops
    assert flops is not None
    with pytest.raises(LrsearchError, match="flops, more than the budget"):
        caps(flops=(1.0, flops, 0)).verify(Doubled(), task)


TWO = [Candidates(np.array([0.0, 1.0, 1.0]), np.array([[100, 50], [10, 40], [90, 5]]), np.array([0, 1, 1]))]


def test_every_resource_out_of_reach_is_told_with_what_it_could_be() -> None:
    both = caps(params=(0.05, 100, 0), flops=(0.05, 50, 0))
    with pytest.raises(BudgetUnreachableError) as caught:
        both.allocate(TWO, "max")
    assert str(caught.value) == (
        "budget.params is 0.05 and budget.flops is 0.05, but the smallest fractions this method reaches on this "
        "network, each alone, are params 0.1, flops 0.1"
    )
    assert caught.value.each == (0.1, 0.1)
    with pytest.raises(BudgetUnreachableError, match=r"^budget\.flops is 0\.05, but .* is 0\.1$") as caught:
        caps(params=(0.9, 100, 0), flops=(0.05, 50, 0)).allocate(TWO, "max")
    assert caught.value.smallest == 0.1


def test_what_only_fails_together_is_told_so() -> None:
    with pytest.raises(BudgetUnreachableError, match=r"each alone, are params 0\.1, flops 0\.1"):
        caps(params=(0.2, 100, 0), flops=(0.2, 50, 0)).allocate(TWO, "max")


@pytest.mark.parametrize("method", ["alds", "svd", "tucker"])
@pytest.mark.parametrize("overhead", [1.0, 1.1])
def test_a_budget_in_latency_is_kept_by_measurement(method: str, overhead: float) -> None:
    """Where a network takes longer than its layers promise, the choice is made again with less."""
    for fraction in (0.9, 0.75):
        task = Task(example_input=images(), latency=PerWeight(overhead))
        compressed = compress(method, {"budget": {"latency": fraction}}, zoo(), task)
        taken = predicted(zoo(), compressed.recipe.layers, images())
        assert fraction - 0.2 < overhead * taken <= fraction
        assert compressed.metrics["predicted_speedup"] == pytest.approx(1 / taken)
    both = compress(method, {"budget": {"latency": 0.9, "params": 0.8}}, zoo(), task)
    assert count_cost(both.model, None).params <= 0.8 * count_cost(zoo(), None).params
    with pytest.raises(LrsearchError, match=r"budget\.latency needs an example input"):
        compress(method, {"budget": {"latency": 0.9}}, zoo(), Task())


def test_the_smallest_reachable_latency_is_told() -> None:
    task = Task(example_input=images(), latency=PerWeight())
    with pytest.raises(BudgetUnreachableError, match=r"budget\.latency is 0\.01, but the smallest") as caught:
        compress("svd", {"budget": {"latency": 0.01}}, zoo(), task)
    within = caught.value.smallest * 1.001
    recipe = compress("svd", {"budget": {"latency": within}}, zoo(), task).recipe
    assert predicted(zoo(), recipe.layers, images()) <= within
