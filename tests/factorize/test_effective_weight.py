import torch
from hypothesis import given, settings
from torch import nn

from lrsearch.factorize import factorize_layer
from lrsearch.factorize.effective_weight import effective_weight
from lrsearch.recipe import Factorization
from tests.factorize.random_layers import factorized, random_input


@settings(max_examples=100, deadline=None)
@given(factorized())
def test_the_dense_layer_with_this_weight_computes_the_same(case: tuple[nn.Module, Factorization]) -> None:
    layer, factorization = case
    built = factorize_layer(layer, factorization)
    assert isinstance(built, nn.Sequential)
    x = random_input(layer, batch=2)
    expected = built(x)
    with torch.no_grad():
        layer.get_parameter("weight").copy_(effective_weight(built, layer.get_parameter("weight").shape))
    torch.testing.assert_close(layer(x), expected, rtol=1e-8, atol=1e-8)


def test_gradients_reach_every_stage() -> None:
    built = factorize_layer(nn.Conv2d(4, 6, 3), Factorization(kind="cp", ranks=(3,)))
    assert isinstance(built, nn.Sequential)
    effective_weight(built, torch.Size((6, 4, 3, 3))).square().sum().backward()
    assert all(float(stage.get_parameter("weight").grad.norm()) > 0 for stage in built)
