import pytest
import torch
from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import build_layer, find_layers, layer_cost, restructure
from lrsearch.measure.cost import count_cost
from lrsearch.recipe import Factorization


def pruned(*channels: int, groups: int = 1) -> Factorization:
    return Factorization(kind="pruned", ranks=channels, groups=groups)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_smaller_convolution_keeps_everything_but_its_channels(groups: int) -> None:
    layer = nn.Conv2d(8, 6, (3, 2), 2, (1, 0), 2, groups, padding_mode="replicate", dtype=torch.float64).eval()
    layer.bias.requires_grad_(False)  # type: ignore[union-attr]
    built = build_layer(layer, pruned(4, 2, groups=groups))
    assert isinstance(built, nn.Conv2d)
    assert (built.in_channels, built.out_channels, built.groups) == (4, 2, groups)
    for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode", "training"):
        assert getattr(built, key) == getattr(layer, key)
    assert built.weight.dtype == torch.float64
    assert [p.requires_grad for p in built.parameters()] == [True, False]


def test_batch_norm_keeps_its_settings() -> None:
    norm = nn.BatchNorm2d(8, eps=0.1, momentum=None, affine=False).double()
    built = build_layer(norm, pruned(3))
    assert isinstance(built, nn.BatchNorm2d)
    assert (built.num_features, built.eps, built.momentum, built.affine) == (3, 0.1, None, False)


def test_its_cost_is_what_is_counted() -> None:
    model = nn.Sequential(nn.Conv2d(8, 6, 3, stride=2, groups=2, bias=False))
    shape = find_layers(model, torch.randn(1, 8, 9, 9))[0]["0"]
    restructure(model, {"0": pruned(4, 2, groups=2)})
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    counted, (params, macs) = count_cost(model, torch.randn(1, 4, 9, 9)), layer_cost(shape, pruned(4, 2, groups=2))
    assert (params, 2 * (macs or 0)) == (counted.params, counted.flops)


@pytest.mark.parametrize(
    ("layer", "factorization", "sentence"),
    [
        (nn.Linear(4, 3), pruned(5, 3), "channels are \\(5, 3\\)"),
        (nn.Linear(4, 3), pruned(0, 3), "channels are \\(0, 3\\)"),
        (nn.Conv2d(4, 4, 1, groups=2), pruned(3, 4, groups=2), "in 2 groups"),
        (nn.BatchNorm2d(4), pruned(5), "expected at most \\(4,\\)"),
        (nn.LayerNorm(4), pruned(4), "expected a Conv2d, Linear or batch-norm layer, got LayerNorm"),
    ],
)
def test_a_recipe_that_does_not_fit_is_one_sentence(
    layer: nn.Module, factorization: Factorization, sentence: str
) -> None:
    with pytest.raises(LrsearchError, match=f"the recipe does not fit layer '0' of the network: .*{sentence}"):
        restructure(nn.Sequential(layer), {"0": factorization})
