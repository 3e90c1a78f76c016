"""CP and tensor trains as candidates of an allocation."""

from typing import Any

import pytest
import torch
from torch import nn

from lrsearch.errors import LrsearchError, TrialFailedError
from lrsearch.factorize import factorize_layer, find_layers, layer_cost
from lrsearch.factorize.cp import multiply_out
from lrsearch.factorize.effective_weight import effective_weight
from lrsearch.measure.cost import count_cost
from lrsearch.methods.base import Task
from lrsearch.methods.one_shot.cp import cp_errors, cp_family
from lrsearch.methods.one_shot.tucker2 import tucker_errors, tucker_family
from tests.methods.zoo import compress, images, zoo


def layer_of(groups: int = 1) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(8, 12, 3, groups=groups, dtype=torch.float64)


@pytest.mark.parametrize("groups", [1, 2])
def test_cp_candidates_cost_and_err_nearly_as_their_factorizations_do(groups: int) -> None:
    """Nearly, since a factorization has the best of several starts."""
    layer = layer_of(groups)
    shape = find_layers(nn.Sequential(layer), torch.randn(1, 8, 9, 9, dtype=torch.float64))[0]["0"]
    families = {error: cp_family(shape, cp_errors(layer.weight, shape, error)) for error in ("energy", "proxy")}
    assert len(families["energy"].errors) > 3
    for index in range(0, len(families["energy"].errors), 3):
        found = families["energy"].member(index)
        cost = layer_cost(shape, found)
        assert families["energy"].sizes[index].tolist() == [cost.params, cost.macs]
        built = factorize_layer(layer, found)
        assert isinstance(built, nn.Sequential)
        weight = layer.weight.detach()
        left = (weight - effective_weight(built, weight.shape)).detach()
        assert float(left.norm() / weight.norm()) == pytest.approx(families["energy"].errors[index], rel=0.1)
        norms = [
            max(float(torch.linalg.matrix_norm(block.flatten(1), 2)) for block in tensor.chunk(groups))
            for tensor in (left, layer.weight.detach())
        ]
        assert norms[0] / norms[1] == pytest.approx(families["proxy"].errors[index], rel=0.3)


def test_a_tensor_train_errs_at_most_as_its_candidate_says() -> None:
    layer = layer_of()
    shape = find_layers(nn.Sequential(layer))[0]["0"]
    family = tucker_family(shape, tucker_errors(layer.weight, 1, "energy"), "energy", "tt")
    for index in range(len(family.errors)):
        built = factorize_layer(layer, family.member(index))
        assert isinstance(built, nn.Sequential)
        left = layer.weight - effective_weight(built, layer.weight.shape)
        assert float((left.norm() / layer.weight.norm()).detach()) <= family.errors[index] + 1e-9


def planted() -> nn.Module:
    """One layer of CP rank 3, which needs more parameters as anything else, and one of matrix rank 2."""
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    model = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1)).double()
    weights = multiply_out([random(12, 3), random(9, 3), random(12, 3)]).mT, random(12, 2) @ random(2, 108)
    for layer, weight in zip((model[0], model[2]), weights, strict=True):
        layer.weight.data = weight.reshape(12, 12, 3, 3)
    return model


@pytest.mark.parametrize("error", ["energy", "proxy"])
def test_each_layer_gets_the_kind_that_suits_it(error: str) -> None:
    values: dict[str, Any] = {"kinds": ("svd", "tucker2", "tt", "cp"), "error": error, "max_subspaces": 1}
    model = planted()
    result = compress("alds_plus", {**values, "budget": {"params": 0.15}}, model, Task())
    assert {name: layer.kind for name, layer in result.recipe.layers.items()} == {"0": "cp", "2": "svd"}
    x = torch.randn(2, 12, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(result.model(x), model(x), rtol=1e-3, atol=1e-3 * float(model(x).abs().max()))


@pytest.mark.parametrize("kind", ["tt", "cp"])
def test_one_kind_alone_keeps_budgets(kind: str) -> None:
    model = zoo()
    result = compress("alds_plus", {"kinds": (kind,), "budget": {"flops": 0.7}}, model)
    costs = [count_cost(network, images()).flops or 0 for network in (result.model, model)]
    assert costs[0] <= 0.7 * costs[1]
    assert kind in {layer.kind for layer in result.recipe.layers.values()}


def test_errors_that_they_do_not_have_are_refused_and_divergence_names_the_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(LrsearchError, match="error proxy or energy where kinds holds tt, cp"):
        compress("alds_plus", {"kinds": ("svd", "tt", "cp"), "error": "theorem1"})

    def diverging(*_: Any, **__: Any) -> None:
        raise ArithmeticError("a CP decomposition of 1 components diverges")

    monkeypatch.setattr("lrsearch.methods.one_shot.cp.cp_factors", diverging)
    with pytest.raises(TrialFailedError, match=r"layer 'stem', candidates of CP: .* diverges"):
        compress("alds_plus", {"kinds": ("cp",)})
