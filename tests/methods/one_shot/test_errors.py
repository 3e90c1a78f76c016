import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from lrsearch.methods.one_shot.errors import energy, loss, proxy, sum_bound, theorem1


def test_proxy_of_one_slice_is_the_relative_operator_norm_of_the_error() -> None:
    weight = torch.randn(6, 9, dtype=torch.float64)
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    errors = proxy(values[None].numpy(), float(values[0]))
    for rank in range(7):
        approximation = (left[:, :rank] * values[:rank]) @ right[:rank]
        expected = torch.linalg.matrix_norm(weight - approximation, 2) / torch.linalg.matrix_norm(weight, 2)
        assert abs(errors[rank] - float(expected)) < 1e-12


def test_proxy_of_several_slices_is_a_lower_bound_within_sqrt_k() -> None:
    """Theorem 1 of the paper is the proxy times sqrt(k), an upper bound."""
    weight = torch.randn(6, 12, dtype=torch.float64)
    parts = torch.split(weight, 4, dim=1)
    factors = [torch.linalg.svd(part, full_matrices=False) for part in parts]
    norm = float(torch.linalg.matrix_norm(weight, 2))
    errors = proxy(np.stack([values.numpy() for _, values, _ in factors]), norm)
    for rank in range(5):
        approximation = torch.cat([(u[:, :rank] * s[:rank]) @ v[:rank] for u, s, v in factors], dim=1)
        true = float(torch.linalg.matrix_norm(weight - approximation, 2)) / norm
        assert errors[rank] <= true + 1e-12
        assert true <= 3**0.5 * errors[rank] + 1e-12


def test_a_weight_of_zeros_has_no_error() -> None:
    assert proxy(np.zeros((2, 3)), 0.0).tolist() == [0.0] * 4


@pytest.mark.parametrize("rank", range(5))
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_both_bounds_hold_and_theorem_1_is_the_looser_one(slices: int, rank: int) -> None:
    weight, factors, values, norm = sliced(slices)
    approximation = torch.cat([(u[:, :rank] * s[:rank]) @ v[:rank] for u, s, v in factors], dim=1)
    true = float(torch.linalg.matrix_norm(weight - approximation, 2)) / norm
    tight, loose = sum_bound(values, norm)[rank], theorem1(values, norm)[rank]
    assert proxy(values, norm)[rank] <= true + 1e-12 <= tight + 2e-12
    assert tight <= loose + 1e-12
    if slices == 1:
        assert tight == pytest.approx(true)
        assert loose == pytest.approx(true)


@pytest.mark.parametrize("rank", range(5))
def test_energy_and_loss_are_frobenius_norms(rank: int) -> None:
    weight, factors, values, norm = sliced(3)
    approximation = torch.cat([(u[:, :rank] * s[:rank]) @ v[:rank] for u, s, v in factors], dim=1)
    lost = float((weight - approximation).square().sum())
    assert loss(values, norm)[rank] == pytest.approx(lost, abs=1e-12)
    assert energy(values, norm)[rank] == pytest.approx((lost / float(weight.square().sum())) ** 0.5, abs=1e-9)


def test_groups_are_blocks_of_one_matrix() -> None:
    """Its operator norm is the largest of the blocks', its energy their sum."""
    values = np.array([[[3.0, 1.0], [2.0, 1.0]], [[4.0, 3.0], [1.0, 0.5]]])
    assert sum_bound(values, 5.0)[0] == pytest.approx(17**0.5 / 5)
    assert theorem1(values, 5.0).tolist() == pytest.approx([4 * 2**0.5 / 5, 3 * 2**0.5 / 5, 0])
    assert loss(values, 5.0).tolist() == pytest.approx([41.25, 11.25, 0])


def sliced(slices: int) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]], npt.NDArray[np.float64], float]:
    weight = torch.randn(6, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(slices))
    factors = [torch.linalg.svd(part, full_matrices=False) for part in weight.chunk(slices, dim=1)]
    values = np.stack([values.numpy() for _, values, _ in factors])
    return weight, factors, values, float(torch.linalg.matrix_norm(weight, 2))
