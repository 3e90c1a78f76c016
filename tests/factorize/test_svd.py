import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

from lrsearch.factorize.svd import fold, singular_values, svd_weights
from tests.factorize.random_layers import convolutions


@settings(max_examples=80, deadline=None)
@given(convolutions(), st.integers(0, 3), st.data())
def test_singular_values_are_those_of_the_library(layer: nn.Conv2d, scheme: int, data: st.DataObject) -> None:
    divisors = [k for k in range(1, layer.weight.shape[1] + 1) if layer.weight.shape[1] % k == 0]
    subspaces = data.draw(st.lists(st.sampled_from(divisors), unique=True))
    found = singular_values(layer.weight, layer.groups, scheme, subspaces)
    assert found.keys() == set(subspaces)
    for k, values in found.items():
        expected = torch.linalg.svdvals(fold(layer.weight, layer.groups, scheme, k))
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", [(24, 48, 3, 3), (64, 24, 1, 1), (24, 60, 1, 1), (60, 24, 3, 2)])
def test_singular_values_of_nested_slices_keep_double_precision(shape: tuple[int, ...]) -> None:
    """Here Gram matrices over rows are added up and those over columns are cut, for every divisor at once."""
    weight = torch.randn(shape)
    divisors = [k for k in range(1, shape[1] + 1) if shape[1] % k == 0]
    for k, values in singular_values(weight, 1, 0, divisors).items():
        torch.testing.assert_close(values, torch.linalg.svdvals(fold(weight.double(), 1, 0, k)), rtol=1e-10, atol=1e-6)


def test_numpy_takes_as_many_threads_as_pytorch_may(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, eigenvalues, allowed = [], np.linalg.eigvalsh, torch.get_num_threads()

    def watched(gram: np.ndarray) -> np.ndarray:
        seen.extend(library["num_threads"] for library in threadpool_info() if "numpy" in library["filepath"])
        return eigenvalues(gram)

    monkeypatch.setattr(np.linalg, "eigvalsh", watched)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(2, "blas"):
            singular_values(torch.randn(6, 8, 3, 3), 1, 0, [1, 8])
    finally:
        torch.set_num_threads(allowed)
    assert set(seen) == {1}


@pytest.mark.parametrize(("scheme", "size"), [(0, (5, 42)), (1, (15, 14)), (2, (10, 21)), (3, (30, 7))])
def test_folded_shapes_are_those_of_the_supplement(scheme: int, size: tuple[int, int]) -> None:
    """A.6 with f = 5, c = 7, kernel 3 x 2: f x c k1 k2, f k1 x c k2, f k2 x c k1, f k1 k2 x c."""
    assert fold(torch.randn(5, 7, 3, 2), 1, scheme, 1).shape == (1, 1, *size)


def test_slices_are_consecutive_input_channels() -> None:
    weight = torch.randn(5, 6, 3, 3)
    slices = fold(weight, 1, 0, 3)
    for i in range(3):
        assert torch.equal(slices[0, i], weight[:, 2 * i : 2 * i + 2].reshape(5, -1))


def test_dense_groups_are_folded_apart() -> None:
    weight = torch.randn(6, 4, 3, 3)
    assert torch.equal(fold(weight, 2, 0, 1)[1, 0], weight[3:].reshape(3, -1))


@pytest.mark.parametrize("scheme", [0, 1, 2, 3])
def test_truncation_error_is_that_of_the_dropped_singular_values(scheme: int) -> None:
    """Eckart-Young, slice by slice: the squared error is the sum of the squares that are dropped."""
    weight = torch.randn(6, 8, 3, 2, dtype=torch.float64)
    first, second = svd_weights(weight, 1, scheme, 2, 2)
    dropped = singular_values(weight, 1, scheme, [2])[2][..., 2:].square().sum()
    chain = torch.einsum(
        "skjhw,kjcxy->skchxwy", second.reshape(6, 2, 2, *second.shape[2:]), first.reshape(2, 2, *first.shape[1:])
    )
    approximation = chain.flatten(1, 2).flatten(2, 3).flatten(3, 4)
    torch.testing.assert_close((approximation - weight).square().sum(), dropped)


def test_spectrum_is_split_evenly_between_the_stages() -> None:
    weight = torch.randn(6, 9, dtype=torch.float64)
    first, second = svd_weights(weight, 1, 0, 1, 4)
    root = torch.linalg.svdvals(weight)[:4].sqrt()
    torch.testing.assert_close(torch.linalg.vector_norm(first.flatten(1), dim=1), root)
    torch.testing.assert_close(torch.linalg.vector_norm(second.flatten(1), dim=0), root)
