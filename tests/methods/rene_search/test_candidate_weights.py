import pytest
import torch
from torch import Tensor, nn

from lrsearch.factorize.ranks import Decomposition
from lrsearch.factorize.tucker import tucker2_weights
from lrsearch.methods.rene_search.candidate_weights import CandidateWeights, candidate_weights
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


def layer_and_candidates(kind: str, decomposition: Decomposition, dense: int = 6) -> tuple[Tensor, CandidateWeights]:
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    return layer.weight.detach(), candidate_weights(layer.weight, shape_of(layer), decomposition, RANKS, dense)


def candidates(weights: CandidateWeights) -> list[Tensor]:
    """A mixture of one candidate alone is that candidate."""
    return [weights.mixture(row) for row in torch.eye(len(RANKS), dtype=torch.float64)]


@every_layer
@every_decomposition
def test_a_mixture_is_the_sum_of_its_candidates(kind: str, decomposition: Decomposition) -> None:
    weight, weights = layer_and_candidates(kind, decomposition)
    probabilities = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    expected = sum(p * candidate for p, candidate in zip(probabilities, candidates(weights), strict=True))
    mixed = weights.mixture(probabilities)
    assert mixed.shape == weight.shape
    torch.testing.assert_close(mixed, torch.as_tensor(expected))


@every_layer
@every_decomposition
def test_errors_are_those_of_the_candidates_and_fall_with_the_rank(kind: str, decomposition: Decomposition) -> None:
    weight, weights = layer_and_candidates(kind, decomposition)
    expected = torch.stack([(weight - c).square().sum() / weight.square().sum() for c in candidates(weights)])
    torch.testing.assert_close(weights.errors(), expected)
    assert (expected.diff() < 0).all()


@every_layer
@every_decomposition
def test_the_rank_that_stands_for_the_dense_layer_is_the_dense_layer(kind: str, decomposition: Decomposition) -> None:
    weight, weights = layer_and_candidates(kind, decomposition, dense=RANKS[-1])
    *smaller, dense = candidates(weights)
    torch.testing.assert_close(dense, weight)
    assert (weights.errors()[:-1] > 0).all()
    assert weights.errors()[-1] == 0
    probabilities = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    mixed = 0.2 * smaller[0] + 0.5 * smaller[1] + 0.3 * weight
    torch.testing.assert_close(weights.mixture(probabilities), mixed)


@every_layer
def test_candidates_of_a_train_are_the_truncated_higher_order_svds(kind: str) -> None:
    weight, weights = layer_and_candidates(kind, "tt")
    groups = 2 if kind == "grouped" else 1
    kernels = weight.reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
    for rank, candidate in zip(RANKS, candidates(weights), strict=True):
        limits = min(rank, kernels.shape[1]), min(rank, kernels.shape[0] // groups)
        first, core, last = (part.unflatten(0, (groups, -1)) for part in tucker2_weights(kernels, groups, *limits))
        product = torch.einsum("gsr,grqhw,gqc->gschw", last[..., 0, 0], core, first[..., 0, 0])
        torch.testing.assert_close(candidate.reshape(product.shape), product)


@every_decomposition
@pytest.mark.parametrize("objective", ["branch", "paper"])
def test_losses_are_the_mean_error_or_that_of_the_mixture(decomposition: Decomposition, objective: str) -> None:
    weight, weights = layer_and_candidates("conv", decomposition)
    probabilities = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    expected = (probabilities * weights.errors()).sum()
    if objective == "paper":
        expected = (weight - weights.mixture(probabilities)).square().sum() / weight.square().sum()
    torch.testing.assert_close(weights.loss(probabilities, objective), expected)
