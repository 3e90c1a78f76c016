"""Each baseline is the best of them by its own objective, recomputed from the weights by full SVDs."""

from collections.abc import Callable

import pytest
import torch

from lrsearch.factorize import find_layers, layer_cost
from lrsearch.methods import load_method
from lrsearch.methods.base import Compressed
from lrsearch.recipe import Factorization
from tests.methods.zoo import compress, images, make_task, zoo

METHODS = ("svd", "svd_error", "svd_energy", "l_rank")


def spectra(compressed: Compressed) -> list[tuple[torch.Tensor, int]]:
    """The singular values of each weight that could be factorized, and how many are kept in every group."""
    model, found = zoo(), []
    for name in find_layers(model, images())[0]:
        layer, factorization = model.get_submodule(name), compressed.recipe.layers[name]
        groups = int(getattr(layer, "groups", 1))
        values = torch.linalg.svdvals(layer.weight.detach().reshape(groups, layer.weight.shape[0] // groups, -1))
        found.append((values, factorization.ranks[0] if factorization.kind == "svd" else values.shape[-1]))
    return found


def largest_error(compressed: Compressed) -> float:
    return max(float(v[:, rank:].max() / v.max()) for v, rank in spectra(compressed) if rank < v.shape[-1])


def largest_loss(compressed: Compressed) -> float:
    return max(float(v[:, rank:].square().sum() / v.square().sum()) for v, rank in spectra(compressed))


def total_loss(compressed: Compressed) -> float:
    return sum(float(v[:, rank:].square().sum()) for v, rank in spectra(compressed))


def smallest_fraction(compressed: Compressed) -> float:
    """How far the most compressed layer is from keeping everything."""
    shapes, _ = find_layers(zoo(), images())
    dense = Factorization(kind="dense")
    pairs = [
        (layer_cost(shape, compressed.recipe.layers[name]), layer_cost(shape, dense)) for name, shape in shapes.items()
    ]
    return 1 - min(small.params / whole.params for small, whole in pairs)


@pytest.mark.parametrize("kept", [0.35, 0.5, 0.7])
@pytest.mark.parametrize(
    ("method", "objective"),
    [("svd", smallest_fraction), ("svd_error", largest_error), ("svd_energy", largest_loss), ("l_rank", total_loss)],
)
def test_no_other_has_a_better_objective(method: str, objective: Callable[[Compressed], float], kept: float) -> None:
    own = objective(compress(method, {"budget": {"params": kept}}))
    others = [objective(compress(other, {"budget": {"params": kept}})) for other in METHODS if other != method]
    assert own <= min(others) + 1e-9
    assert own < max(others)


@pytest.mark.parametrize("method", METHODS)
def test_statistics_are_of_whole_weights_alone(method: str) -> None:
    assert {key.split("/")[-1] for key in load_method(method).statistics(zoo(), make_task())} == {"1"}


@pytest.mark.parametrize("method", ["alds_error", "alds_simple"])
def test_subspaces_are_fixed_where_they_divide(method: str) -> None:
    recipe = compress(method, {"budget": {"params": 0.4}, "subspaces": 4}).recipe
    groups = {name: f.groups for name, f in recipe.layers.items() if f.kind == "svd"}
    assert groups.pop("hidden", 3) == 3
    assert groups.pop("head", 4) == 4
    assert set(groups.values()) <= {4, 3}
    assert groups["dilated"] == 4


def test_one_subspace_makes_them_the_plain_ones() -> None:
    for fixed, plain in (("alds_error", "svd_error"), ("alds_simple", "svd")):
        values = {"budget": {"params": 0.5}}
        layers = (compress(fixed, {**values, "subspaces": 1}).recipe.layers, compress(plain, values).recipe.layers)
        assert layers[0] == layers[1]


def test_alds_plus_uses_other_foldings_with_several_subspaces() -> None:
    recipes = [compress("alds_plus", {"budget": {"params": kept}}).recipe for kept in (0.3, 0.4, 0.5, 0.6)]
    used = {(f.scheme, f.groups > 1) for recipe in recipes for f in recipe.layers.values() if f.kind == "svd"}
    assert {scheme for scheme, _ in used} > {0}
    assert any(several for scheme, several in used if scheme)
