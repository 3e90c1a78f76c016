"""Sensitivities by their definition: loops over outputs, positions and channels."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrsearch.errors import LrsearchError
from lrsearch.factorize import find_layers
from lrsearch.methods.pruning.sensitivity import observe_sensitivities, sensitivities, weight_sensitivities


def by_definition(layer: nn.Conv2d, inputs: Tensor) -> list[float]:
    """max over outputs and positions of a channel's share in the positive, or in the negative, contributions."""
    found = [0.0] * layer.in_channels
    inner, outer = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    for output in range(layer.out_channels):
        group = output // outer
        parts = torch.stack([
            functional.conv2d(
                inputs[:, group * inner + c : group * inner + c + 1],
                layer.weight.detach()[output : output + 1, c : c + 1],
                stride=layer.stride, padding=layer.padding, dilation=layer.dilation,
            )
            for c in range(inner)
        ])  # fmt: skip
        for signed in (parts.clamp_min(0), (-parts).clamp_min(0)):
            total = signed.sum(0)
            shares = torch.where(total > 0, signed / total, torch.zeros(()).double())
            for c in range(inner):
                found[group * inner + c] = max(found[group * inner + c], float(shares[c].max()))
    return found


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"groups": 2}, {"dilation": 2, "groups": 4}])
def test_it_is_the_largest_share_in_any_output(options: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, 3, bias=False, dtype=torch.float64, **options)
    model, images = nn.Sequential(layer), torch.randn(2, 4, 5, 5, dtype=torch.float64).relu()
    layers, _ = find_layers(model, images)
    found = observe_sensitivities(model, layers, [(images, torch.zeros(2))], torch.device("cpu"))
    exact = by_definition(layer, images)
    if layer(images).shape[-1] ** 2 <= 8:
        assert found["0"].tolist() == pytest.approx(exact)
    assert all(0 <= sampled <= whole + 1e-12 for sampled, whole in zip(found["0"].tolist(), exact, strict=True))


def test_a_dead_channel_has_none_and_a_lonely_one_all() -> None:
    weight = torch.randn(3, 2, dtype=torch.float64)
    assert sensitivities(weight, 1, torch.tensor([[0.0, 2.0]]).double()).tolist() == [0.0, 1.0]


def test_without_inputs_weights_tell() -> None:
    weight = torch.tensor([[3.0, -1.0], [1.0, 1.0]])
    assert weight_sensitivities(weight, 1).tolist() == [0.75, 0.5]
    assert weight_sensitivities(torch.tensor([[2.0], [3.0]]).reshape(2, 1, 1, 1), 2).tolist() == [1.0, 1.0]


def test_no_data_is_an_error() -> None:
    with pytest.raises(LrsearchError, match="holds no batch"):
        observe_sensitivities(nn.Linear(1, 1), {}, [], torch.device("cpu"))
