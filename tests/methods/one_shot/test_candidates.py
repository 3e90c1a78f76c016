import numpy as np
import pytest
import torch
from torch import nn

from lrsearch.factorize import Call, LayerShape, find_layers, layer_cost
from lrsearch.factorize.svd import singular_values
from lrsearch.methods.base import Task
from lrsearch.methods.one_shot.candidates import (
    CHOSEN,
    NOT_SMALLER,
    Family,
    LayerTable,
    is_smaller,
    svd,
    svd_candidates,
)
from lrsearch.methods.one_shot.cap import Cap, Caps
from lrsearch.methods.one_shot.errors import proxy
from lrsearch.methods.one_shot.timed import TimedLayers
from lrsearch.recipe import Factorization
from tests.methods.one_shot.clockwork import Steps

DENSE = Factorization(kind="dense")
FLOPS = Caps((Cap("flops", 0.5, 1, 0),))
PARAMS = Caps((Cap("params", 0.5, 1, 0),))


@pytest.fixture(scope="module")
def layer() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(12, 10, 3, stride=2).requires_grad_(False)


@pytest.fixture(scope="module")
def shape(layer: nn.Conv2d) -> LayerShape:
    return find_layers(nn.Sequential(layer), torch.randn(1, 12, 9, 9))[0]["0"]


def table(layer: nn.Conv2d, shape: LayerShape, schemes: tuple[int, ...] = (0, 1, 2, 3)) -> LayerTable:
    keys = [(scheme, k) for scheme in schemes for k in (1, 2, 3)]
    spectra = {(scheme, k): singular_values(layer.weight, 1, scheme, [k])[k] for scheme, k in keys}
    families = svd_candidates(shape, spectra, float(spectra[0, 1].max()), proxy)
    return LayerTable("0", shape, families, FLOPS)


def test_every_candidate_costs_and_errs_as_its_factorization_does(layer: nn.Conv2d, shape: LayerShape) -> None:
    """Schemes of every folding compete in one table; each row is checked against its own definition."""
    made = table(layer, shape)
    norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    for index in range(1, len(made.candidates.costs)):
        factorization = made.factorization(index)
        cost = layer_cost(shape, factorization)
        assert is_smaller(cost, layer_cost(shape, DENSE))
        assert made.candidates.costs[index] == 2 * (cost.macs or 0)
        assert made.candidates.groups[index] == factorization.groups
        k = factorization.groups
        values = singular_values(layer.weight, 1, factorization.scheme, [k])[k]
        dropped = values[..., factorization.ranks[0] :]
        expected = float(dropped.max() / norm) if dropped.numel() else 0.0
        assert made.candidates.errors[index] == pytest.approx(expected, abs=1e-6)


def test_every_smaller_factorization_is_a_candidate_once(layer: nn.Conv2d, shape: LayerShape) -> None:
    made = table(layer, shape)
    found = [made.factorization(index) for index in range(1, len(made.candidates.costs))]
    assert len(set(found)) == len(found)
    for scheme in range(4):
        for subspaces in (1, 2, 3):
            limit = singular_values(layer.weight, 1, scheme, [subspaces])[subspaces].shape[-1]
            every = [svd(scheme, subspaces, rank) for rank in range(1, limit + 1)]
            smaller = [f for f in every if is_smaller(layer_cost(shape, f), layer_cost(shape, DENSE))]
            assert [f for f in found if (f.scheme, f.groups) == (scheme, subspaces)] == smaller


def test_dense_is_always_a_candidate_and_says_why(layer: nn.Conv2d, shape: LayerShape) -> None:
    made = table(layer, shape)
    assert made.candidates.errors[0] == 0
    assert made.candidates.costs[0] == made.candidates.costs.max()
    assert made.factorization(0).reason == CHOSEN
    assert LayerTable("0", shape, [], FLOPS).factorization(0).reason == NOT_SMALLER


def test_families_of_different_kinds_compete_in_one_table() -> None:
    def tucker(index: int) -> Factorization:
        return Factorization(kind="tucker2", ranks=(index + 1, index + 1))

    pair = Family(2, np.array([0.5, 0.25]), np.array([[10, 0], [20, 0]]), lambda index: svd(0, 2, index + 1))
    chain = Family(0, np.array([0.4]), np.array([[15, 0]]), tucker)
    made = LayerTable("0", LayerShape(6, 5), [pair, chain], PARAMS)
    assert made.candidates.costs.tolist() == [[30], [10], [20], [15]]
    assert [made.factorization(i).kind for i in range(4)] == ["dense", "svd", "svd", "tucker2"]
    assert made.candidates.groups.tolist() == [0, 2, 2, 0]
    assert made.factorization(2).ranks == (2, 2)


def test_fewer_parameters_at_more_multiply_adds_is_not_smaller() -> None:
    """Scheme 3 of a strided layer works at the resolution of the input."""
    shape = find_layers(nn.Sequential(nn.Conv2d(16, 8, 3, stride=3)), torch.randn(1, 16, 30, 30))[0]["0"]
    cost, dense = layer_cost(shape, svd(3, 1, 8)), layer_cost(shape, DENSE)
    assert cost.params < dense.params
    assert not is_smaller(cost, dense)


def test_several_caps_make_several_columns() -> None:
    shape = LayerShape(6, 5, calls=(Call(1, (2, 2), (2, 2)),))
    family = Family(1, np.array([0.5]), np.array([[11, 44]]), lambda index: svd(0, 1, index + 1))
    caps = Caps((Cap("params", 0.5, 1, 0), Cap("flops", 0.5, 1, 0)))
    assert LayerTable("0", shape, [family], caps).candidates.costs.tolist() == [[30, 240], [11, 88]]


def test_only_what_is_faster_competes_where_latency_is_capped() -> None:
    model, example = nn.Sequential(nn.Conv2d(64, 64, 3)), torch.randn(1, 64, 8, 8)
    layers, _ = find_layers(model, example)

    class Fast(Steps):
        dense = 40.0

    timed = TimedLayers(model, layers, Task(example_input=example, latency=Fast()), "a test")
    family = Family(1, 1 / np.arange(1, 61), np.ones((60, 2), dtype=np.int64), lambda index: svd(0, 1, index + 1))
    made = LayerTable("0", layers["0"], [family], Caps((Cap("latency", 0.5, 1, 0),), timed))
    found = [made.factorization(index).ranks[0] for index in range(1, len(made.candidates.errors))]
    assert max(found) == 32 and {16, 32} <= set(found)
    assert made.candidates.errors.tolist() == [0, *(1 / rank for rank in found)]
    expected = [0.8, *(0.8 * (16 if rank <= 16 else 32) / 40 for rank in found)]
    assert made.candidates.costs[:, 0] / 1e12 == pytest.approx(np.array(expected))
