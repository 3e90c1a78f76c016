import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lrsearch.factorize import factorize_layer
from lrsearch.factorize.branches import branched_weights
from lrsearch.factorize.tucker import tucker2_weights
from lrsearch.recipe import Factorization


def whole(first: Tensor, core: Tensor, last: Tensor, branches: int) -> Tensor:
    """The weight of the chain for one dense group, branch by branch."""
    inputs, outputs = first[:, :, 0, 0].chunk(branches), last[:, :, 0, 0].chunk(branches, 1)
    parts = zip(outputs, core.chunk(branches), inputs, strict=True)
    terms = [torch.einsum("sr,rqhw,qc->schw", left, middle, right) for left, middle, right in parts]
    return torch.stack(terms).sum(0)


def kept_diagonal(weight: Tensor, rank: int, branches: int) -> Tensor:
    """The published construction: the blocks on the diagonal of the Tucker core."""
    first, core, last = tucker2_weights(weight, 1, rank, rank)
    size = rank // branches
    blocks = [core[i * size : (i + 1) * size, i * size : (i + 1) * size] for i in range(branches)]
    return whole(first, torch.cat(blocks), last, branches)


def random_weight(seed: int, outputs: int = 12, inputs: int = 10) -> Tensor:
    return torch.randn(outputs, inputs, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([1, 2, 4]), st.sampled_from([4, 8]), st.integers(0, 100))
def test_fitting_is_never_worse_than_keeping_the_diagonal_blocks(branches: int, rank: int, seed: int) -> None:
    weight = random_weight(seed)
    fitted = whole(*branched_weights(weight, 1, rank, rank, branches), branches)
    assert (weight - fitted).norm() <= (weight - kept_diagonal(weight, rank, branches)).norm() + 1e-9


@pytest.mark.parametrize("branches", [2, 4])
def test_no_other_core_is_better_for_these_factors(branches: int) -> None:
    """Least squares over all entries of the grouped core finds nothing better than a stationary point should leave."""
    weight = random_weight(7)
    first, core, last = branched_weights(weight, 1, 8, 8, branches)
    basis = []
    for entry in range(core.numel()):
        unit = torch.zeros_like(core).flatten()
        unit[entry] = 1
        basis.append(whole(first, unit.reshape(core.shape), last, branches).flatten())
    solution = torch.linalg.lstsq(torch.stack(basis, 1), weight.flatten()[:, None]).solution
    best = (torch.stack(basis, 1) @ solution).reshape(weight.shape)
    found = whole(first, core, last, branches)
    assert (weight - found).norm() <= 1.01 * (weight - best).norm()


def test_one_branch_is_tucker() -> None:
    conv = nn.Conv2d(10, 12, 3, dtype=torch.float64).requires_grad_(False)
    fitted = whole(*branched_weights(conv.weight, 1, 4, 6, 1), 1)
    refined = whole(*tucker2_weights(conv.weight, 1, 4, 6, refine=True), 1)
    assert (conv.weight - fitted).norm() == pytest.approx(float((conv.weight - refined).norm()), rel=1e-3)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_chain_computes_the_sum_of_its_branches(groups: int) -> None:
    conv = nn.Conv2d(8 * groups, 6 * groups, 3, stride=2, padding=1, groups=groups, dtype=torch.float64)
    form = Factorization(kind="tucker2", ranks=(4, 2), groups=2)
    chain, x = factorize_layer(conv, form), torch.randn(2, 8 * groups, 9, 9, dtype=torch.float64)
    assert [stage.groups for stage in chain] == [groups, 2 * groups, groups]
    first, core, last = branched_weights(conv.weight, groups, 4, 2, 2)
    parts = zip(first.chunk(groups), core.chunk(groups), last.chunk(groups), strict=True)
    weight = torch.cat([whole(*part, 2) for part in parts])
    expected = torch.nn.functional.conv2d(x, weight, conv.bias, stride=2, padding=1, groups=groups)
    torch.testing.assert_close(chain(x), expected)


def test_branches_that_do_not_divide_the_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="a number of branches that divides ranks"):
        factorize_layer(nn.Conv2d(8, 8, 3), Factorization(kind="tucker2", ranks=(4, 3), groups=2))
