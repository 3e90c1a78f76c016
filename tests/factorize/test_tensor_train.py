import pytest
import tensorly
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lrsearch.factorize.tensor_train import tt_weights


def multiplied_out(first: Tensor, core: Tensor, last: Tensor) -> Tensor:
    return torch.einsum("sr,rqhw,qc->schw", last[..., 0, 0], core, first[..., 0, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.data())
def test_equals_the_tensor_train_of_tensorly(inputs: int, outputs: int, data: st.DataObject) -> None:
    r1, r2 = data.draw(st.integers(1, inputs)), data.draw(st.integers(1, outputs))
    weight = torch.randn(outputs, inputs, 3, 2, generator=torch.Generator().manual_seed(r1), dtype=torch.float64)
    train = tensorly.decomposition.tensor_train(weight.permute(0, 2, 3, 1).flatten(1, 2).numpy(), [1, r2, r1, 1])
    expected = torch.from_numpy(tensorly.tt_to_tensor(train)).reshape(outputs, 3, 2, inputs).permute(0, 3, 1, 2)
    torch.testing.assert_close(multiplied_out(*tt_weights(weight, 1, r1, r2)), expected)


def test_planted_ranks_are_found_exactly_in_every_group() -> None:
    shapes = ((3, 9, 1, 1), (2, 3, 3, 3), (8, 2, 1, 1))
    groups = [multiplied_out(*(torch.randn(shape, dtype=torch.float64) for shape in shapes)) for _ in range(2)]
    first, core, last = tt_weights(torch.cat(groups), 2, 3, 2)
    assert (first.shape, core.shape, last.shape) == ((6, 9, 1, 1), (4, 3, 3, 3), (16, 2, 1, 1))
    for g, weight in enumerate(groups):
        parts = first[3 * g : 3 * g + 3], core[2 * g : 2 * g + 2], last[8 * g : 8 * g + 8]
        torch.testing.assert_close(multiplied_out(*parts), weight)


def test_error_is_within_the_bound_of_the_unfoldings() -> None:
    """Oseledets 2011, eq. 2.5: at most the root of the summed squares of what each unfolding's best fit loses."""
    weight = torch.randn(12, 10, 3, 3, dtype=torch.float64)
    lost = [torch.linalg.svdvals(weight.transpose(0, axis).flatten(1))[rank:] for axis, rank in ((1, 4), (0, 5))]
    error = (multiplied_out(*tt_weights(weight, 1, 4, 5)) - weight).norm()
    assert max(part.norm() for part in lost) <= error <= torch.cat(lost).norm()


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ArithmeticError, match="not finite"):
        tt_weights(torch.full((3, 3, 3, 3), float("nan")), 1, 2, 2)
