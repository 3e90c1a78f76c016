import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrsearch.factorize import factorize_layer, materialize
from tests.factorize.random_layers import layers, random_input, shape_of, svd_factorizations, tucker_factorizations


@settings(max_examples=150, deadline=None)
@given(layers(), st.data())
def test_outputs_of_the_product_are_those_of_the_stages(layer: nn.Conv2d | nn.Linear, data: st.DataObject) -> None:
    """For every kind, scheme, rank, stride, padding and grouping, also after the stages were trained apart."""
    kinds = [svd_factorizations] if isinstance(layer, nn.Linear) else [svd_factorizations, tucker_factorizations]
    factorization = data.draw(st.composite(data.draw(st.sampled_from(kinds)))(shape_of(layer)))
    factorized = factorize_layer(layer, factorization)
    for parameter in factorized.parameters():
        nn.init.normal_(parameter)
    untouched = copy.deepcopy(layer.state_dict())

    dense = materialize(factorized, layer)

    assert type(dense) is type(layer)
    inputs = random_input(layer)
    torch.testing.assert_close(dense(inputs), factorized(inputs), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(value, untouched[key]) for key, value in layer.state_dict().items())


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
