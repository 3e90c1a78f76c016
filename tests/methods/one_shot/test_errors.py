import numpy as np
import torch

from lrsearch.methods.one_shot.errors import proxy


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
