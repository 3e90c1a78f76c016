"""Alternating least squares against the least-squares problems it alternates between, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lrsearch.factorize.alternating import refine
from lrsearch.factorize.output_aware import decompose, multiply_out
from tests.factorize.test_output_aware import folded, positive, problem


def error(change: Tensor, covariance: Tensor, importance: Tensor) -> float:
    return float(torch.trace(importance @ change @ covariance @ change.mT))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scheme=st.integers(0, 3), rank=st.integers(1, 4), subspaces=st.sampled_from([1, 3]))
def test_the_output_error_never_rises(seed: int, scheme: int, rank: int, subspaces: int) -> None:
    weight, inputs = problem(seed)
    covariance, importance = inputs @ inputs.mT, positive(5, seed)
    made = decompose(folded(weight, covariance, importance, scheme), subspaces)
    rank = min(rank, len(made.errors) - 1)
    first, second = refine(made, rank)
    assert first.shape == made.first[:rank].shape
    assert second.shape == made.second(rank).shape
    refined = multiply_out(first, second, made.folded.cells)
    after = error(weight.flatten(1) - refined, covariance, importance)
    assert after <= float(made.errors[rank]) + 1e-9 * float(made.errors[0])


@pytest.mark.parametrize(("scheme", "subspaces"), [(1, 1), (2, 1), (3, 1), (0, 3)])
def test_it_ends_where_neither_stage_can_do_better_alone(
    scheme: int, subspaces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regress the root of H W on everything that one stage can add to it, the other being fixed."""
    monkeypatch.setattr("lrsearch.factorize.alternating._SWEEPS", 200)
    monkeypatch.setattr("lrsearch.factorize.alternating._WORTHWHILE", 0.0)
    weight, inputs = problem(5)
    covariance, importance = inputs @ inputs.mT, positive(5, 5)
    made = decompose(folded(weight, covariance, importance, scheme), subspaces)
    first, second = refine(made, 2)
    cells, root = made.folded.cells, torch.linalg.cholesky(importance).mT
    reached = error(weight.flatten(1) - multiply_out(first, second, cells), covariance, importance)
    assert reached < 0.99 * float(made.errors[2])

    def best(parameters: Tensor, of_first: bool) -> float:
        units = torch.eye(parameters.numel(), dtype=torch.float64).reshape(-1, *parameters.shape)
        moved = [multiply_out(unit, second, cells) if of_first else multiply_out(first, unit, cells) for unit in units]
        features = torch.stack([(root @ each @ inputs).flatten() for each in moved], 1)
        target = (root @ weight.flatten(1) @ inputs).flatten()
        residual = target - features @ torch.linalg.lstsq(features, target).solution
        return float(residual.square().sum())

    assert best(first, True) == pytest.approx(reached, rel=1e-6)
    assert best(second, False) == pytest.approx(reached, rel=1e-6)


@pytest.mark.parametrize("scheme", range(4))
def test_dead_inputs_do_no_harm(scheme: int) -> None:
    weight, _ = problem(0)
    nothing, equal = torch.zeros(18, 18, dtype=torch.float64), torch.eye(5, dtype=torch.float64)
    for stage in refine(decompose(folded(weight, nothing, equal, scheme)), 1):
        assert bool(torch.isfinite(stage).all())
