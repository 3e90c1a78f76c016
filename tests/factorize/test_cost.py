import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lrsearch.factorize import build_layer, layer_cost
from lrsearch.recipe import Factorization
from tests.factorize.random_layers import factorized, layers, random_input, shape_of


def counted_flops(module: nn.Module, x: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return int(counter.get_total_flops())


@settings(max_examples=150, deadline=None)
@given(factorized())
def test_closed_form_is_what_the_counter_counts(case: tuple[nn.Module, Factorization]) -> None:
    layer, factorization = case
    x = random_input(layer)
    cost = layer_cost(shape_of(layer, x), factorization)
    assert cost.macs is not None
    assert 2 * cost.macs == counted_flops(build_layer(layer, factorization), x)


@settings(max_examples=100, deadline=None)
@given(layers(), st.integers(1, 3))
def test_dense_cost_is_counted_by_hand_and_by_the_counter(layer: nn.Conv2d | nn.Linear, batch: int) -> None:
    x = random_input(layer, batch)
    cost = layer_cost(shape_of(layer, x), Factorization(kind="dense"))
    outputs = layer(x).numel()
    by_hand = outputs * layer.weight[0].numel()
    assert cost == (layer.weight.numel(), by_hand)
    assert counted_flops(layer, x) == 2 * by_hand


def test_first_stage_of_a_strided_tucker_chain_works_at_the_resolution_of_the_input() -> None:
    layer = nn.Conv2d(8, 10, 3, stride=2, padding=1)
    cost = layer_cost(shape_of(layer, torch.randn(1, 8, 6, 6)), Factorization(kind="tucker2", ranks=(3, 4)))
    assert cost == (8 * 3 + 3 * 4 * 9 + 4 * 10, 36 * 8 * 3 + 9 * 3 * 4 * 9 + 9 * 4 * 10)


def test_alds_parameter_count() -> None:
    """METHODS: j (S k + C kernel area)."""
    cost = layer_cost(shape_of(nn.Conv2d(12, 10, (3, 5))), Factorization(kind="svd", ranks=(2,) * 4, groups=4))
    assert cost == (2 * (10 * 4 + 12 * 15), None)


def test_a_layer_called_twice_costs_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(self.conv(x)[..., ::2, :])
            return y

    from lrsearch.factorize import find_layers

    model, x = Twice(), torch.randn(1, 4, 6, 6)
    shape = find_layers(model, x)[0]["conv"]
    assert 2 * (layer_cost(shape, Factorization(kind="dense")).macs or 0) == counted_flops(model, x)


@pytest.mark.parametrize("scheme", [0, 1, 2, 3])
def test_svd_cost_is_proportional_to_the_rank(scheme: int) -> None:
    shape = shape_of(nn.Conv2d(8, 6, 3, stride=2), torch.randn(1, 8, 9, 9))

    def cost(rank: int) -> tuple[int, int]:
        given = {"kind": "svd", "ranks": (rank, rank), "groups": 2, "scheme": scheme}
        params, macs = layer_cost(shape, Factorization.model_validate(given))
        assert macs is not None
        return params, macs

    assert cost(4) == (4 * cost(1)[0], 4 * cost(1)[1])
