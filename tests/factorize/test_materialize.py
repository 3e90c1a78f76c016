import copy

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from lrsearch.factorize import factorize_layer, materialize
from lrsearch.recipe import Factorization
from tests.factorize.random_layers import factorized, random_input


@settings(max_examples=150, deadline=None)
@given(factorized())
def test_outputs_of_the_product_are_those_of_the_stages(case: tuple[nn.Conv2d | nn.Linear, Factorization]) -> None:
    """For every kind, scheme, rank, stride, padding and grouping, also after the stages were trained apart."""
    layer, factorization = case
    stages = factorize_layer(layer, factorization)
    for parameter in stages.parameters():
        nn.init.normal_(parameter)
    untouched = copy.deepcopy(layer.state_dict())

    dense = materialize(stages, layer)

    assert type(dense) is type(layer)
    inputs = random_input(layer)
    torch.testing.assert_close(dense(inputs), stages(inputs), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(value, untouched[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize(("layer", "groups"), [(nn.Linear(12, 10), 1), (nn.Conv2d(12, 10, (3, 2), groups=2), 2)])
def test_channels_gathered_into_clusters_come_back_in_their_order(layer: nn.Linear | nn.Conv2d, groups: int) -> None:
    layer = layer.double()
    stages = factorize_layer(layer, Factorization(kind="messi", ranks=(2, 2, 2), groups=3))
    each = 12 // groups
    stages[0].index.copy_(torch.cat([torch.randperm(each) + each * group for group in range(groups)]))
    inputs = random_input(layer)
    torch.testing.assert_close(materialize(stages, layer)(inputs), stages(inputs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("before", "between"), [(1, 6), (6, 1), (2, 6), (6, 3)])
def test_stages_of_other_groups_than_a_layers_multiply_out_too(before: int, between: int) -> None:
    """A depthwise stage between two 1x1 convolutions is CP, one of several groups is Tucker with branches."""
    chain = nn.Sequential(
        nn.Conv2d(6, 12, 1, groups=before, bias=False),
        nn.Conv2d(12, 6, (3, 2), stride=2, groups=between, bias=False),
        nn.Conv2d(6, 5, 1),
    ).double()
    inputs = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    dense = materialize(chain, nn.Conv2d(6, 5, (3, 2), stride=2, dtype=torch.float64))
    torch.testing.assert_close(dense(inputs), chain(inputs), rtol=1e-10, atol=1e-10)


def test_a_layer_that_stayed_dense_is_copied() -> None:
    layer, trained = nn.Linear(3, 4), nn.Linear(3, 4)
    dense = materialize(trained, layer)
    assert isinstance(dense, nn.Linear) and dense is not trained
    assert torch.equal(dense.weight, trained.weight) and torch.equal(dense.bias, trained.bias)


@pytest.mark.parametrize(
    ("stages", "error", "message"),
    [
        ([nn.Linear(3, 2), nn.Linear(2, 4)], ValueError, "bias"),
        ([nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 4)], TypeError, "ReLU"),
        ([nn.Linear(3, 2, bias=False), nn.Linear(2, 4, bias=False)], ValueError, "bias"),
        ([nn.Linear(3, 2, bias=False), nn.Linear(2, 5)], ValueError, r"\(5, 3, 1, 1\), expected \(4, 3\)"),
    ],
)
def test_what_no_dense_layer_computes_is_refused(stages: list[nn.Module], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        materialize(nn.Sequential(*stages), nn.Linear(3, 4))
