import numpy as np
import tensorly
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition._tucker import initialize_tucker
from torch import Tensor

from lrsearch.factorize.tucker import tucker2_weights


def multiplied_out(first: Tensor, core: Tensor, last: Tensor) -> Tensor:
    return torch.einsum("sr,rqhw,qc->schw", last[..., 0, 0], core, first[..., 0, 0])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.data())
def test_equals_the_higher_order_svd_of_tensorly(inputs: int, outputs: int, data: st.DataObject) -> None:
    r1, r2 = data.draw(st.integers(1, inputs)), data.draw(st.integers(1, outputs))
    weight = torch.from_numpy(np.random.default_rng(inputs * 10 + outputs).standard_normal((outputs, inputs, 3, 2)))
    _, (left, right) = initialize_tucker(weight.numpy(), [r2, r1], [0, 1], None, init="svd")
    projected = tensorly.tenalg.multi_mode_dot(weight.numpy(), [left @ left.T, right @ right.T], modes=[0, 1])
    ours = multiplied_out(*tucker2_weights(weight, 1, r1, r2))
    np.testing.assert_allclose(ours.numpy(), projected, atol=1e-8)


def test_full_ranks_are_exact_and_groups_are_decomposed_apart() -> None:
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    first, core, last = tucker2_weights(weight, 2, 4, 3)
    assert (first.shape, core.shape, last.shape) == ((8, 4, 1, 1), (6, 4, 3, 3), (6, 3, 1, 1))
    for g in range(2):
        parts = first[4 * g : 4 * g + 4], core[3 * g : 3 * g + 3], last[3 * g : 3 * g + 3]
        torch.testing.assert_close(multiplied_out(*parts), weight[3 * g : 3 * g + 3])


def test_low_multilinear_rank_is_found_exactly() -> None:
    parts = [torch.randn(size, dtype=torch.float64) for size in ((3, 9, 1, 1), (2, 3, 3, 3), (8, 2, 1, 1))]
    weight = multiplied_out(*parts)
    torch.testing.assert_close(multiplied_out(*tucker2_weights(weight, 1, 3, 2)), weight)


def test_refining_brings_the_approximation_closer() -> None:
    """The error of the higher-order SVD is at most sqrt(2) times the best, so there is something to gain on noise."""
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal((12, 12, 3, 3)))
    plain, refined = (multiplied_out(*tucker2_weights(weight, 1, 4, 4, refine=refine)) for refine in (False, True))
    assert (refined - weight).norm() < 0.999 * (plain - weight).norm()


def test_refining_works_on_every_group() -> None:
    weight = torch.randn(8, 4, 3, 3, dtype=torch.float64)
    shapes = [tuple(part.shape) for part in tucker2_weights(weight, 2, 2, 3, refine=True)]
    assert shapes == [(4, 4, 1, 1), (6, 2, 3, 3), (8, 3, 1, 1)]


def test_large_layers_take_memory_in_proportion() -> None:
    """The outer product of these factors would take 64 GiB."""
    first, core, last = tucker2_weights(torch.randn(512, 512, 2, 1), 1, 256, 256)
    assert (first.shape, core.shape, last.shape) == ((256, 512, 1, 1), (256, 256, 2, 1), (512, 256, 1, 1))
