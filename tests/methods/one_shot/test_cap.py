import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lrsearch.allocate import Candidates
from lrsearch.errors import BudgetUnreachableError, LrsearchError
from lrsearch.factorize import LayerCost, find_layers
from lrsearch.measure.cost import count_cost
from lrsearch.methods.base import Budget, Task
from lrsearch.methods.one_shot.cap import Cap, make_cap

TABLE = [Candidates(np.array([0.0, 1.0]), np.array([100, 10]), np.array([0, 1]))]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


@given(st.floats(1e-9, 1), st.integers(1, 10**12))
def test_what_is_allowed_never_exceeds_the_fraction_and_misses_it_by_less_than_one(fraction: float, total: int) -> None:
    allowed = Cap(Budget(params=fraction), total, 0).allowed
    assert allowed / total <= fraction
    assert allowed > fraction * total * (1 - 1e-15) - 1


@pytest.mark.parametrize(("resource", "fixed"), [("params", 4 + 8 + 5), ("flops", 0)])
def test_what_no_layer_can_change_is_set_aside(resource: str, fixed: int) -> None:
    model, task = network(), Task(example_input=torch.randn(1, 2, 4, 4))
    layers, _ = find_layers(model, task.example_input)
    cap = make_cap(model, layers, Budget.model_validate({resource: 0.5}), task)
    assert cap.fixed == fixed
    assert cap.total == getattr(count_cost(model, task.example_input), resource)


def test_flops_are_two_for_each_multiply_add() -> None:
    cost = LayerCost(params=3, macs=7)
    assert Cap(Budget(params=0.5), 10, 0).unit(cost) == 3
    assert Cap(Budget(flops=0.5), 10, 0).unit(cost) == 14


def test_the_smallest_fraction_can_be_asked_for() -> None:
    """The fixed part counts: 20 + 10 of 120."""
    with pytest.raises(BudgetUnreachableError, match=r"budget\.params is 0\.1, but .* is 0\.25$") as caught:
        Cap(Budget(params=0.1), 120, 20).allocate(TABLE, "max")
    assert Cap(Budget(params=caught.value.smallest), 120, 20).allocate(TABLE, "max") == [1]


@given(st.integers(1, 1000), st.integers(0, 1000))
def test_the_smallest_fraction_is_reachable_whatever_the_rounding(total: int, fixed: int) -> None:
    total += fixed + 100
    with pytest.raises(BudgetUnreachableError) as caught:
        Cap(Budget(params=1e-12), total, fixed).allocate(TABLE, "max")
    assert Cap(Budget(params=caught.value.smallest), total, fixed).allocate(TABLE, "max") == [1]


def test_a_network_that_exceeds_its_budget_after_all_is_not_handed_out() -> None:
    model, task = network(), Task(example_input=torch.randn(1, 2, 4, 4))
    Cap(Budget(params=1.0), count_cost(model, None).params, 0).verify(model, task)
    with pytest.raises(LrsearchError, match="more than the budget"):
        Cap(Budget(params=1.0), count_cost(model, None).params - 1, 0).verify(model, task)


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
        Cap(Budget(flops=1.0), flops, 0).verify(Doubled(), task)
