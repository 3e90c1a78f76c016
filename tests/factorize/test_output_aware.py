"""The data-aware decomposition against brute force: matrices of real inputs, SVDs, least squares, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from lrsearch.factorize.output_aware import (
    DenseOutputs,
    FoldedOutputs,
    OutputDecomposition,
    decompose,
    least_errors,
    multiply_out,
)

SHAPE = (5, 3, 2, 3)
SIDE = 18
EQUAL = torch.eye(5, dtype=torch.float64)


def problem(seed: int) -> tuple[Tensor, Tensor]:
    """A weight (S, C, height, width) and correlated inputs X (D, n)."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    mixed = torch.randn(SIDE, SIDE, generator=generator, dtype=torch.float64)
    return weight, mixed @ torch.randn(SIDE, 60, generator=generator, dtype=torch.float64)


def positive(side: int, seed: int) -> Tensor:
    root = torch.randn(side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.mT + torch.eye(side)


def folded(weight: Tensor, covariance: Tensor, importance: Tensor, scheme: int = 0) -> FoldedOutputs:
    return FoldedOutputs(DenseOutputs(weight, covariance, importance), scheme)


def approximation(made: OutputDecomposition, rank: int) -> Tensor:
    return multiply_out(made.first[:rank], made.second(rank), made.folded.cells)


def optimum(weight: Tensor, inputs: Tensor, rank: int) -> Tensor:
    """Of ||(W - What) X||_F over all What of this rank: the SVD of W R, with R the root of X X^T, taken back."""
    values, vectors = torch.linalg.eigh(inputs @ inputs.mT)
    root, back = (vectors * power @ vectors.mT for power in (values.sqrt(), values.rsqrt()))
    left, singular, right = torch.linalg.svd(weight @ root, full_matrices=False)
    return (left[:, :rank] * singular[:rank]) @ right[:rank] @ back


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), rank=st.integers(1, 5))
def test_scheme_0_is_the_best_approximation_of_the_output(seed: int, rank: int) -> None:
    weight, inputs = problem(seed)
    made = decompose(folded(weight, inputs @ inputs.mT, EQUAL))
    best = optimum(weight.flatten(1), inputs, rank)
    torch.testing.assert_close(approximation(made, rank), best, rtol=1e-6, atol=1e-6)
    expected = ((weight.flatten(1) - best) @ inputs).square().sum()
    torch.testing.assert_close(made.errors[rank], expected, rtol=1e-6, atol=1e-6 * float(made.errors[0]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), rank=st.integers(1, 4))
def test_important_outputs_are_kept_as_if_they_were_scaled(seed: int, rank: int) -> None:
    weight, inputs = problem(seed)
    importance = positive(5, seed + 1)
    factor = torch.linalg.cholesky(importance).mT
    best = torch.linalg.solve(factor, optimum(factor @ weight.flatten(1), inputs, rank))
    made = decompose(folded(weight, inputs @ inputs.mT, importance))
    torch.testing.assert_close(approximation(made, rank), best, rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), rank=st.integers(1, 5))
def test_slices_that_say_nothing_of_each_other_are_each_approximated_best(seed: int, rank: int) -> None:
    weight, inputs = problem(seed)
    apart = torch.block_diag(*inputs.chunk(3))
    made = decompose(folded(weight, apart @ apart.mT, EQUAL), subspaces=3)
    pairs = zip(weight.flatten(1).chunk(3, dim=1), inputs.chunk(3), strict=True)
    best = torch.cat([optimum(part, given, rank) for part, given in pairs], 1)
    torch.testing.assert_close(approximation(made, rank), best, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheme", range(4))
@pytest.mark.parametrize("subspaces", [1, 3])
@pytest.mark.parametrize("seed", range(2))
def test_errors_are_those_of_the_real_outputs_and_never_rise(scheme: int, subspaces: int, seed: int) -> None:
    weight, inputs = problem(seed)
    importance = positive(5, seed)
    made = decompose(folded(weight, inputs @ inputs.mT, importance, scheme), subspaces)
    for rank in range(len(made.errors)):
        change = (weight.flatten(1) - approximation(made, rank)) @ inputs if rank else weight.flatten(1) @ inputs
        expected = torch.trace(change.mT @ importance @ change)
        torch.testing.assert_close(made.errors[rank], expected, rtol=1e-6, atol=1e-7 * float(made.errors[0]))
    assert bool((made.errors.diff() <= 1e-9 * made.errors[0]).all())
    assert made.errors[-1] <= 1e-7 * made.errors[0]
    fewer = decompose(folded(weight, inputs @ inputs.mT, importance, scheme), subspaces, ranks=1)
    torch.testing.assert_close(fewer.errors, made.errors[:2])


@pytest.mark.parametrize("scheme", range(4))
def test_no_second_stage_does_better(scheme: int) -> None:
    """Regress the dense outputs on what the first stage puts out."""
    weight, inputs = problem(7)
    made = decompose(folded(weight, inputs @ inputs.mT, EQUAL, scheme))
    for rank in (1, 2):
        kernels = made.first[:rank, 0]
        features = torch.stack([kernels @ inputs[cell] for cell in made.folded.cells], 1).flatten(0, 1).mT
        fitted = torch.linalg.lstsq(features, (weight.flatten(1) @ inputs).mT).solution.mT
        torch.testing.assert_close(made.second(rank).flatten(1), fitted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("scheme", "first", "second"), [(0, (2, 3), (1, 1)), (1, (1, 3), (2, 1)), (2, (2, 1), (1, 3)), (3, (1, 1), (2, 3))]
)
@pytest.mark.parametrize("subspaces", [1, 3])
def test_two_convolutions_make_the_approximation(
    scheme: int, first: tuple[int, int], second: tuple[int, int], subspaces: int
) -> None:
    weight, inputs = problem(3)
    made = decompose(folded(weight, inputs @ inputs.mT, positive(5, 3), scheme), subspaces)
    images = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    for rank in (1, len(made.errors) - 1):
        kernels, seconds = made.folded.convolutions(made.first[:rank], made.second(rank))
        assert kernels.shape == (rank * subspaces, 3 // subspaces, *first)
        assert seconds.shape == (5, rank * subspaces, *second)
        chained = functional.conv2d(functional.conv2d(images, kernels, groups=subspaces), seconds)
        whole = functional.conv2d(images, approximation(made, rank).reshape(SHAPE))
        torch.testing.assert_close(chained, whole, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scheme", range(4))
def test_dead_inputs_do_no_harm(scheme: int) -> None:
    weight, _ = problem(0)
    made = decompose(folded(weight, torch.zeros(SIDE, SIDE, dtype=torch.float64), EQUAL, scheme))
    assert bool(torch.isfinite(approximation(made, 1)).all())
    assert float(made.errors.max()) == 0


@pytest.mark.parametrize("outputs", [2, 5])
@pytest.mark.parametrize("entries", [2, 3])
def test_least_errors_are_those_of_scheme_0_in_one_subspace(outputs: int, entries: int) -> None:
    weight, inputs = problem(11)
    weight, inputs = weight[:outputs, :1, :1, :entries], inputs[:entries]
    dense = DenseOutputs(weight, inputs @ inputs.mT, positive(outputs, 11))
    expected = decompose(FoldedOutputs(dense, 0)).errors
    torch.testing.assert_close(least_errors(dense), expected, rtol=1e-8, atol=1e-8 * float(expected[0]))


@pytest.mark.parametrize("scheme", range(4))
@pytest.mark.parametrize("subspaces", [1, 3])
def test_a_fit_goes_on_from_a_smaller_one(scheme: int, subspaces: int) -> None:
    weight, inputs = problem(2)
    group = folded(weight, inputs @ inputs.mT, positive(5, 2), scheme)
    first = group.first_stage(subspaces)
    at_once, by_steps = group.fit(first), group.fit(first[:1])
    for ranks in range(2, len(first) + 1):
        by_steps = group.fit(first[:ranks], by_steps)
    torch.testing.assert_close(by_steps.errors, at_once.errors, rtol=1e-8, atol=1e-8 * float(at_once.errors[0]))
    torch.testing.assert_close(by_steps.factor, at_once.factor, rtol=1e-6, atol=1e-6)
