import pytest
import torch
from torch import nn

from lrsearch.factorize import GroupedLinear


@pytest.mark.parametrize("leading", [(), (3,), (2, 5), (0,), (2, 1, 4)])
def test_equals_a_grouped_convolution_with_the_same_weight(leading: tuple[int, ...]) -> None:
    layer = GroupedLinear(6, 9, 3)
    convolution = nn.Conv1d(6, 9, 1, groups=3, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(layer.weight[..., None])
    x = torch.randn(*leading, 6)
    expected = convolution(x.reshape(-1, 6, 1)).reshape(*leading, 9) if x.numel() else torch.zeros(*leading, 9)
    torch.testing.assert_close(layer(x), expected)


def test_gradients_reach_the_weight() -> None:
    layer = GroupedLinear(4, 6, 2)
    layer(torch.randn(3, 4)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0


def test_prints_its_sizes() -> None:
    assert repr(GroupedLinear(4, 6, 2)) == "GroupedLinear(in_features=4, out_features=6, groups=2)"
