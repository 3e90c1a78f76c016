"""Projective clustering against exhaustive search over all ways to divide channels equally."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lrsearch.factorize import ChannelGather, factorize_layer, find_layers, layer_cost, restructure
from lrsearch.factorize.projective import cluster_channels
from lrsearch.measure.cost import count_cost
from lrsearch.recipe import Factorization
from tests.factorize.random_layers import convolutions, random_input


def energy_lost(weight: Tensor, order: list[int], subspaces: int, rank: int) -> float:
    """What slices of channels in an order lose by SVD, each folded to (S, channels x area)."""
    parts = torch.tensor(order).reshape(subspaces, -1)
    return sum(float(torch.linalg.svdvals(weight[:, part].flatten(1))[rank:].square().sum()) for part in parts)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([(4, 2), (6, 2), (6, 3)]), st.integers(1, 2), st.integers(0, 10_000))
def test_between_consecutive_slices_and_the_best_of_all_partitions(
    sizes: tuple[int, int], rank: int, seed: int
) -> None:
    channels, subspaces = sizes
    weight = torch.randn(5, channels, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    order = cluster_channels(weight, 1, subspaces, rank).tolist()
    assert sorted(order) == list(range(channels))
    lost = energy_lost(weight, order, subspaces, rank)
    every = [energy_lost(weight, list(o), subspaces, rank) for o in itertools.permutations(range(channels))]
    assert min(every) - 1e-9 <= lost <= energy_lost(weight, list(range(channels)), subspaces, rank) + 1e-9


@pytest.mark.parametrize("groups", [1, 2])
def test_channels_that_share_subspaces_are_found(groups: int) -> None:
    """Three clusters of four channels in planes of their own, shuffled: nothing is lost."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(groups):
        planes = torch.randn(3, 8, 2, dtype=torch.float64, generator=generator)
        points = torch.randn(3, 2, 4 * 9, dtype=torch.float64, generator=generator)
        cells = (planes @ points).reshape(3, 8, 4, 9).transpose(0, 1).reshape(8, 12, 3, 3)
        parts.append(cells[:, torch.randperm(12, generator=generator)])
    layer = nn.Conv2d(12 * groups, 8 * groups, 3, groups=groups, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.cat(parts))
    found = factorize_layer(layer, Factorization(kind="messi", ranks=(2, 2, 2), groups=3))
    x = torch.randn(2, 12 * groups, 6, 6, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(found(x), layer(x))
    sliced = factorize_layer(layer, Factorization(kind="svd", ranks=(2, 2, 2), groups=3))
    assert not torch.allclose(sliced(x), layer(x), rtol=0.1)


@settings(max_examples=40, deadline=None)
@given(convolutions(), st.data())
def test_the_module_is_the_convolution_with_the_projected_weight(layer: nn.Conv2d, data: st.DataObject) -> None:
    """Any stride, padding, dilation and groups: slices are projected, and channels put back in their places."""
    groups, inner = layer.groups, layer.in_channels // layer.groups
    subspaces = data.draw(st.sampled_from([k for k in range(1, inner + 1) if inner % k == 0]))
    factorization = Factorization(kind="messi", ranks=(1,) * subspaces, groups=subspaces)
    found = factorize_layer(layer, factorization)
    index = found[0].index  # type: ignore[index, union-attr]
    projected = layer.weight.detach().clone()
    for group in range(groups):
        rows = slice(group * len(projected) // groups, (group + 1) * len(projected) // groups)
        for part in index.reshape(groups, subspaces, -1)[group] % inner:
            matrix = projected[rows][:, part]
            left, values, right = torch.linalg.svd(matrix.flatten(1), full_matrices=False)
            projected[rows][:, part] = (left[:, :1] * values[:1] @ right[:1]).reshape(matrix.shape)
    dense = copy.deepcopy(layer)
    with torch.no_grad():
        dense.weight.copy_(projected)
    x = random_input(layer, 2)
    torch.testing.assert_close(found(x), dense(x), rtol=1e-6, atol=1e-6)


def test_linear_layers_gather_features_whatever_comes_before() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 5)
    found = factorize_layer(layer, Factorization(kind="messi", ranks=(2, 2, 2), groups=3))
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(found(x), layer(x))


def test_the_order_counts_as_parameters_and_is_rebuilt() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 8, 3, bias=False))
    shape = find_layers(model, torch.randn(1, 6, 5, 5))[0]["0"]
    factorization = Factorization(kind="messi", ranks=(1, 1), groups=2)
    found = nn.Sequential(factorize_layer(model[0], factorization))
    assert layer_cost(shape, factorization).params == count_cost(found, None).params == 2 * (8 + 27) + 6
    restructure(model, {"0": factorization})
    model.load_state_dict(found.state_dict())
    x = torch.randn(1, 6, 5, 5)
    assert torch.equal(model(x), found(x))


def test_gathering_is_indexing() -> None:
    gather = ChannelGather(4, -3)
    gather.index = torch.tensor([2, 0, 3, 1])
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(gather(x), x[:, [2, 0, 3, 1]])
    assert torch.equal(gather(x[0]), x[0][[2, 0, 3, 1]])
