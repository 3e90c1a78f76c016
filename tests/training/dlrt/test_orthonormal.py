import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lrsearch.training.dlrt.orthonormal import Extension, at_once, extend, in_blocks

PRECISIONS = [torch.float32, torch.float64]


def orthonormal(rows: int, columns: int, dtype: torch.dtype, groups: int = 1) -> Tensor:
    return torch.linalg.qr(torch.randn(groups, rows, columns, dtype=dtype)).Q


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """A basis and new columns: any condition, also singular, zero, inside the span already, and more than room."""
    torch.manual_seed(draw(st.integers(0, 2**20)))
    dtype, groups = draw(st.sampled_from(PRECISIONS)), draw(st.integers(1, 2))
    rows = draw(st.integers(1, 40))
    rank, new = draw(st.integers(1, rows)), draw(st.integers(1, rows))
    old = orthonormal(rows, rank, dtype, groups)
    mixed = torch.randn(groups, new, new, dtype=dtype) * torch.logspace(0, draw(st.integers(-12, 0)), new, dtype=dtype)
    inside = old @ torch.randn(groups, rank, new, dtype=dtype)
    gained = draw(st.sampled_from([1, 0])) * torch.randn(groups, rows, new, dtype=dtype) @ mixed.mT
    gained = gained + draw(st.sampled_from([0, 1, 1000])) * inside
    kept = torch.arange(new) < draw(st.integers(0, new))
    return old, gained * kept * 10.0 ** draw(st.integers(-12, 12))


def check(found: Extension, old: Tensor, gained: Tensor) -> None:
    basis, rank = found.basis, old.shape[-1]
    eps = 100 * torch.finfo(old.dtype).eps
    columns = min(rank + gained.shape[-1], old.shape[-2])
    identity = torch.eye(columns, dtype=old.dtype).expand(len(old), -1, -1)
    torch.testing.assert_close(basis.mT @ basis, identity, rtol=0, atol=eps)
    torch.testing.assert_close(basis[..., :rank], old, rtol=0, atol=eps)
    size = float(gained.abs().max()) * gained.shape[-2] ** 0.5
    new = basis[..., rank:]
    torch.testing.assert_close(found.coefficients, new.mT @ gained, rtol=0, atol=eps * size)
    torch.testing.assert_close(basis @ (basis.mT @ gained), gained, rtol=0, atol=eps * size)


@settings(deadline=None, max_examples=60)
@given(problems())
def test_a_basis_stays_orthonormal_and_takes_in_whatever_there_is(problem: tuple[Tensor, Tensor]) -> None:
    old, gained = problem
    check(at_once(old, gained), old, gained)
    if old.shape[-1] + gained.shape[-1] <= old.shape[-2]:
        found = in_blocks(old, gained)
        if found is not None:
            check(found, old, gained)


@pytest.mark.parametrize(("dtype", "condition"), [(torch.float32, 1e4), (torch.float64, 1e12)])
def test_blocks_span_what_one_factorisation_does(dtype: torch.dtype, condition: float) -> None:
    """Also where the Gram matrix of the new columns is singular in the precision at hand."""
    torch.manual_seed(0)
    old = orthonormal(300, 20, dtype, groups=2)
    scales = torch.logspace(0, -torch.tensor(condition).log10(), 30, dtype=dtype)
    mixed = orthonormal(30, 30, dtype, groups=2) * scales
    gained = orthonormal(300, 30, dtype, groups=2) @ mixed.mT + old @ torch.randn(2, 20, 30, dtype=dtype)
    found, whole = in_blocks(old, gained), at_once(old, gained)
    assert found is not None
    check(found, old, gained)
    across = torch.linalg.svdvals(found.basis.mT @ whole.basis)
    within = 10 * condition * torch.finfo(dtype).eps
    torch.testing.assert_close(across, torch.ones_like(across), rtol=0, atol=within)


@pytest.mark.parametrize("fault", ["drifted", "inside"])
def test_blocks_are_given_up_where_they_would_not_do(fault: str) -> None:
    torch.manual_seed(0)
    old, gained = orthonormal(1400, 300, torch.float32), torch.randn(1, 1400, 100)
    if fault == "drifted":
        old[..., 3] += 1e-4 * old[..., 5]
    else:
        gained = old @ torch.randn(1, 300, 100)
    assert in_blocks(old, gained) is None
    basis = extend(old, gained).basis
    torch.testing.assert_close(basis.mT @ basis, torch.eye(400)[None], rtol=0, atol=1e-5)


def test_large_bases_are_extended_in_blocks() -> None:
    """And give way where a number is not finite, for the loss to tell."""
    torch.manual_seed(0)
    old, gained = orthonormal(3000, 50, torch.float32), torch.randn(1, 3000, 50)
    assert torch.equal(extend(old, gained).basis[..., :50], old)
    gained[0, 7, 7] = torch.nan
    assert extend(old, gained).basis.isnan().any()


def test_rounding_errors_do_not_add_up_in_blocks() -> None:
    """Where all err in the same direction and nothing new is kept; seldom is the basis made orthonormal anew."""
    torch.manual_seed(0)
    basis, given_up = orthonormal(200, 8, torch.float32), 0
    for _ in range(200):
        gained = torch.randn(1, 200, 8)
        found = in_blocks(basis, gained)
        given_up += found is None
        basis = (found or at_once(basis, gained)).basis[..., :8] * (1 + 3e-7)
        assert (basis.mT @ basis - torch.eye(8)).abs().max() < 1e-5
    assert 0 < given_up < 40
