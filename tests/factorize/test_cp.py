import pytest
import tensorly
import torch
from torch import Tensor

from lrsearch.factorize.cp import cp_factors, cp_fits, cp_weights, modes_of, multiply_out

SIZES = {0: (16, 9, 12), 1: (16, 3, 3, 12)}


def planted(scheme: int, rank: int, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """(S, C, 3, 3) weights of this CP rank, with and without noise of this relative size."""
    generator = torch.Generator().manual_seed(rank)
    factors = [torch.randn(size, rank, generator=generator, dtype=torch.float64) for size in SIZES[scheme]]
    clean = torch.from_numpy(tensorly.cp_to_tensor((None, [f.numpy() for f in factors]))).reshape(16, 3, 3, 12)
    added = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    noisy = clean + noise * added * clean.norm() / added.norm()
    return noisy.permute(0, 3, 1, 2), clean.permute(0, 3, 1, 2)


def multiplied_out(first: Tensor, *middle: Tensor) -> Tensor:
    *kernels, last = middle
    kernel = kernels[0][:, 0] if len(kernels) == 1 else kernels[0][:, 0] * kernels[1][:, 0]
    return torch.einsum("sr,rhw,rc->schw", last[..., 0, 0], kernel, first[..., 0, 0])


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("rank", [1, 5, 10])
def test_a_planted_rank_is_reproduced(scheme: int, rank: int) -> None:
    weight, _ = planted(scheme, rank)
    assert (multiplied_out(*cp_weights(weight, 1, rank, scheme)) - weight).norm() < 1e-4 * weight.norm()


@pytest.mark.parametrize("scheme", [0, 1])
def test_noise_is_left_out(scheme: int) -> None:
    noisy, clean = planted(scheme, 4, noise=0.1)
    fitted = multiplied_out(*cp_weights(noisy, 1, 4, scheme))
    assert (fitted - clean).norm() < 0.5 * (noisy - clean).norm()


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("rank", range(2, 9))
def test_errors_of_several_fits_bend_at_the_planted_rank(scheme: int, rank: int) -> None:
    noisy, clean = planted(scheme, rank, noise=0.05)
    fits = cp_fits(modes_of(noisy, scheme), [rank - 1, rank, rank + 3])
    assert [fit[0].shape[1] for fit in fits] == [rank - 1, rank, rank + 3]
    less, right, more = [float((multiply_out(fit) - modes_of(noisy, scheme)).square().sum()) for fit in fits]
    assert right < float((noisy - clean).square().sum())
    assert less - right > 3 * (right - more)


@pytest.mark.parametrize("scheme", [0, 1])
def test_no_fit_of_several_is_poorer_than_one_of_fewer_components(scheme: int) -> None:
    weight = torch.randn(10, 8, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    modes = modes_of(weight / weight.norm(), scheme)
    errors = torch.stack([(multiply_out(fit) - modes).norm() for fit in cp_fits(modes, range(1, 16))])
    assert (errors.diff() < 0).all()


@pytest.mark.parametrize("seed", [3, 11])
def test_a_planted_rank_is_still_found_coming_from_many_more_components(seed: int) -> None:
    """Of so many components large ones cancel, and fits that keep the largest of them end with a part missing."""
    generator = torch.Generator().manual_seed(seed)
    factors = [torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in (6, 3, 3, 9)]
    clean = multiply_out([torch.linalg.qr(factor)[0] for factor in factors])
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    noise *= 0.2 * clean.norm() / noise.norm()
    fit = cp_fits(clean + noise, range(3, 24))[0]
    assert (multiply_out(fit) - clean - noise).norm() < noise.norm()


def test_the_penalty_keeps_components_from_cancelling() -> None:
    """A tensor of rank 3 and border rank 2 (De Silva and Lim 2008): two components approach it only by diverging."""
    a, b = torch.eye(2, dtype=torch.float64)
    terms = [(a, a, b), (a, b, a), (b, a, a)]
    weight = sum(torch.einsum("i,j,k->ijk", *term) for term in terms)
    factors = cp_factors(torch.as_tensor(weight), 2)
    sizes = torch.stack([factor.norm(dim=0) for factor in factors]).prod(0)
    assert (multiply_out(factors) - weight).norm() < 0.2 * torch.as_tensor(weight).norm()
    assert sizes.max() < 20 * torch.as_tensor(weight).norm()


def test_groups_are_decomposed_apart_and_components_spread_evenly() -> None:
    pair = [planted(0, 3)[0], planted(0, 2)[0]]
    first, depthwise, last = cp_weights(torch.cat(pair), 2, 3, 0)
    assert (first.shape, depthwise.shape, last.shape) == ((6, 12, 1, 1), (6, 1, 3, 3), (32, 3, 1, 1))
    for g, weight in enumerate(pair):
        parts = first[3 * g : 3 * g + 3], depthwise[3 * g : 3 * g + 3], last[16 * g : 16 * g + 16]
        assert (multiplied_out(*parts) - weight).norm() < 1e-3 * weight.norm()
        norms = [parts[0].flatten(1).norm(dim=1), parts[1].flatten(1).norm(dim=1), parts[2][..., 0, 0].norm(dim=0)]
        torch.testing.assert_close(norms[0], norms[1])
        torch.testing.assert_close(norms[0], norms[2])
        assert norms[0].tolist() == sorted(norms[0].tolist(), reverse=True)


def test_same_weight_same_factors() -> None:
    weight = torch.randn(8, 9, 7, generator=torch.Generator().manual_seed(0))
    first, second = (cp_factors(weight, 6) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_zero_has_a_decomposition_and_numbers_that_are_not_finite_have_none() -> None:
    assert multiply_out(cp_factors(torch.zeros(3, 4, 5), 2)).norm() == 0
    with pytest.raises(ArithmeticError, match="not finite"):
        cp_factors(torch.full((3, 3, 3), float("inf")), 2)
