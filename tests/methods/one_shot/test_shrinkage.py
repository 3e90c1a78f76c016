"""Shrinkage against the part that would have been the best for the true covariance, and against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from torch import Tensor

from lrsearch.methods.one_shot.shrinkage import shrunk

SIDE = 20


def covariance(correlation: float) -> Tensor:
    places = torch.arange(SIDE, dtype=torch.float64)
    return correlation ** (places[:, None] - places).abs()


def moments(true: Tensor, samples: int, draws: int = 200) -> tuple[Tensor, Tensor]:
    """Rows (draws, samples, D), and their second moments."""
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(draws, samples, SIDE, dtype=torch.float64, generator=generator)
    rows = white @ torch.linalg.cholesky(true).mT
    return rows, rows.mT @ rows / samples


def mixed(seen: Tensor, part: float) -> Tensor:
    level = seen.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    return (1 - part) * seen + part * level * torch.eye(SIDE, dtype=torch.float64)


@pytest.mark.parametrize("correlation", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("samples", [5, 30, 1000])
def test_hardly_any_other_part_comes_nearer_to_the_true_covariance(correlation: float, samples: int) -> None:
    true = covariance(correlation)
    _, seen = moments(true, samples)

    def away(found: Tensor) -> float:
        return float((found - true).square().sum((1, 2)).mean())

    best = min(away(mixed(seen, part)) for part in np.linspace(0, 1, 101))
    assert away(shrunk(seen, samples)) < 1.4 * best
    assert away(shrunk(seen, samples)) < away(seen)


@pytest.mark.parametrize("samples", [5, 30, 1000])
def test_each_group_is_shrunk_as_scikit_learn_shrinks_it(samples: int) -> None:
    rows, seen = moments(covariance(0.7), samples, draws=3)
    for drawn, found in zip(rows, shrunk(seen, samples), strict=True):
        expected = OAS(assume_centered=True).fit(drawn.numpy()).covariance_
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0.05, atol=0.02)


def test_what_is_even_or_nothing_stays_as_it_is() -> None:
    even = torch.eye(SIDE, dtype=torch.float64)[None] * 3
    torch.testing.assert_close(shrunk(even, 10), even)
    assert torch.equal(shrunk(torch.zeros_like(even), 10), torch.zeros_like(even))
