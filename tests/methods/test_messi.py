import pytest
import torch

from lrsearch.factorize import factorize_layer, find_layers, layer_cost
from lrsearch.recipe import Factorization
from tests.methods.zoo import compress, images, zoo


def test_channels_are_clustered_where_there_is_more_than_one_subspace() -> None:
    recipe = compress("messi", {"budget": {"params": 0.4}}).recipe
    kinds = {name: (each.kind, each.groups) for name, each in recipe.layers.items() if each.kind != "dense"}
    assert kinds["dilated"] == ("messi", 3)
    assert {kind for kind, groups in kinds.values() if groups > 1} == {"messi"}
    assert {kind for kind, groups in kinds.values() if groups == 1} <= {"svd"}


def test_with_one_subspace_it_is_plain_svd() -> None:
    values = {"budget": {"params": 0.5}, "subspaces": 1}
    assert compress("messi", values).recipe.layers == compress("svd", {"budget": values["budget"]}).recipe.layers


@pytest.mark.parametrize("kept", [0.4, 0.6])
def test_clusters_lose_no_more_than_slices_of_the_same_rank(kept: float) -> None:
    model = zoo()
    recipe = compress("messi", {"budget": {"params": kept}}, model).recipe
    shapes, _ = find_layers(model, images())
    clustered = {name: each for name, each in recipe.layers.items() if each.kind == "messi"}
    assert clustered
    for name, each in clustered.items():
        layer = model.get_submodule(name)
        sliced = Factorization(kind="svd", ranks=each.ranks, groups=each.groups)
        lost = [energy_lost(layer, factorization) for factorization in (each, sliced)]
        assert lost[0] <= lost[1] + 1e-9
        assert layer_cost(shapes[name], each).params == (
            layer_cost(shapes[name], sliced).params + shapes[name].in_channels
        )


def energy_lost(layer: torch.nn.Module, factorization: Factorization) -> float:
    """||W - What||^2, by the response to every unit impulse of a stride-free, padded-out copy of the layer."""
    weight, groups = layer.get_parameter("weight").detach(), int(getattr(layer, "groups", 1))
    dense = torch.nn.Conv2d(weight.shape[1] * groups, len(weight), weight.shape[2:] or 1, groups=groups, bias=False)
    dense = dense.double()
    with torch.no_grad():
        dense.weight.copy_(weight.reshape(dense.weight.shape))
    inputs = torch.eye(dense.in_channels * dense.weight[0, 0].numel(), dtype=torch.float64)
    inputs = inputs.reshape(-1, dense.in_channels, *dense.kernel_size)
    with torch.no_grad():
        return float((factorize_layer(dense, factorization)(inputs) - dense(inputs)).square().sum())
