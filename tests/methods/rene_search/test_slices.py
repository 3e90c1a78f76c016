import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lrsearch.factorize.ranks import Decomposition
from lrsearch.factorize.tucker import tucker2_weights
from lrsearch.methods.rene_search.slices import Slices, slices_of
from tests.factorize.random_layers import shape_of

DECOMPOSITIONS: list[Decomposition] = ["tt", "cp", "cp4"]
LAYERS = {
    "conv": lambda: nn.Conv2d(9, 12, 3, dtype=torch.float64),
    "narrow": lambda: nn.Conv2d(3, 12, (3, 2), dtype=torch.float64),
    "grouped": lambda: nn.Conv2d(8, 12, 3, groups=2, dtype=torch.float64),
    "point": lambda: nn.Conv2d(9, 12, 1, dtype=torch.float64),
    "linear": lambda: nn.Linear(9, 12, dtype=torch.float64),
}
RANKS = [2, 3, 5]

every_layer = pytest.mark.parametrize("kind", LAYERS)
every_decomposition = pytest.mark.parametrize("decomposition", DECOMPOSITIONS)


def layer_and_slices(kind: str, decomposition: Decomposition) -> tuple[Tensor, Slices]:
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    return layer.weight.detach(), slices_of(layer.weight, shape_of(layer), decomposition, RANKS)


def candidates(slices: Slices) -> list[Tensor]:
    """A mixture of one candidate alone is that candidate."""
    return [slices.mixture(row) for row in torch.eye(len(RANKS), dtype=torch.float64)]


@every_layer
@every_decomposition
def test_a_mixture_is_the_sum_of_its_candidates(kind: str, decomposition: Decomposition) -> None:
    weight, slices = layer_and_slices(kind, decomposition)
    probabilities = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    expected = sum(p * candidate for p, candidate in zip(probabilities, candidates(slices), strict=True))
    mixed = slices.mixture(probabilities)
    assert mixed.shape == weight.shape
    torch.testing.assert_close(mixed, torch.as_tensor(expected))


@every_layer
@every_decomposition
def test_errors_are_those_of_the_candidates_and_fall_with_the_rank(kind: str, decomposition: Decomposition) -> None:
    weight, slices = layer_and_slices(kind, decomposition)
    expected = torch.stack([(weight - c).square().sum() / weight.square().sum() for c in candidates(slices)])
    torch.testing.assert_close(slices.errors(), expected)
    assert (expected.diff() < 0).all()


@every_layer
def test_candidates_of_a_train_are_the_truncated_higher_order_svds(kind: str) -> None:
    weight, slices = layer_and_slices(kind, "tt")
    groups = 2 if kind == "grouped" else 1
    kernels = weight.reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
    for rank, candidate in zip(RANKS, candidates(slices), strict=True):
        limits = min(rank, kernels.shape[1]), min(rank, kernels.shape[0] // groups)
        first, core, last = (part.unflatten(0, (groups, -1)) for part in tucker2_weights(kernels, groups, *limits))
        product = torch.einsum("gsr,grqhw,gqc->gschw", last[..., 0, 0], core, first[..., 0, 0])
        torch.testing.assert_close(candidate.reshape(product.shape), product)


@every_decomposition
@pytest.mark.parametrize("objective", ["branch", "paper"])
def test_losses_are_the_mean_error_or_that_of_the_mixture(decomposition: Decomposition, objective: str) -> None:
    weight, slices = layer_and_slices("conv", decomposition)
    probabilities = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    expected = (probabilities * slices.errors()).sum()
    if objective == "paper":
        expected = (weight - slices.mixture(probabilities)).square().sum() / weight.square().sum()
    torch.testing.assert_close(slices.loss(probabilities, objective), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8))
def test_planted_components_are_in_the_candidate_of_their_number(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    factors = [torch.randn(size, rank, generator=generator, dtype=torch.float64) for size in (10, 9, 11)]
    layer = nn.Conv2d(11, 10, 3, dtype=torch.float64)
    layer.weight.data = torch.einsum("sr,kr,cr->sck", *factors).reshape(10, 11, 3, 3)
    errors = slices_of(layer.weight, shape_of(layer), "cp", [rank, rank + 2]).errors()
    assert errors[0] < 1e-6
