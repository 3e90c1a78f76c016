import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lrsearch.training.dlrt.layers import low_rank
from lrsearch.training.dlrt.truncation import PermittedRanks, rank_within, truncate, widen

spectra = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12).map(lambda values: sorted(values, reverse=True))


@given(spectra, st.floats(1e-3, 0.99))
def test_the_rank_is_the_smallest_that_loses_less_than_tau(spectrum: list[float], tau: float) -> None:
    whole = math.sqrt(sum(value**2 for value in spectrum))
    enough = [
        rank
        for rank in range(1, len(spectrum) + 1)
        if math.sqrt(sum(value**2 for value in spectrum[rank:])) < tau * whole
    ]
    assert rank_within(spectrum, tau) == enough[0]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16), st.integers(1, 60))
def test_permitted_ranks_are_multiples_of_the_tile_within_the_bounds(low: int, high: int, tile: int, rank: int) -> None:
    permitted = PermittedRanks.between(low, high, tile)
    every = [r for r in range(1, high + 1) if r >= min(low, high)]
    multiples = [r for r in every if r % tile == 0]
    assert list(permitted.ranks) == (multiples or every)
    chosen = permitted.at_least(rank)
    assert chosen in permitted.ranks
    assert chosen >= rank or chosen == permitted.ranks[-1]
    assert not [r for r in permitted.ranks if rank <= r < chosen]


@pytest.mark.parametrize("layer", [nn.Linear(20, 30), nn.Conv2d(4, 12, 3, groups=2)], ids=["linear", "grouped"])
def test_truncation_moves_the_weight_by_exactly_what_it_drops(layer: nn.Linear | nn.Conv2d) -> None:
    """Also of a core that is far from diagonal, as it is after a step."""
    torch.manual_seed(0)
    small = low_rank(layer.double(), 5)
    with torch.no_grad():
        small.S.add_(torch.randn_like(small.S))
    before, dropped = small.weight(), torch.linalg.svdvals(small.S.detach())[..., 3:]
    truncate({"": small}, lambda _: {"": 3}, {})
    assert small.rank == 3
    torch.testing.assert_close((small.weight() - before).square().sum(), dropped.square().sum())
    diagonal = small.S.detach().diagonal(dim1=-2, dim2=-1).diag_embed()
    assert torch.equal(small.S.detach(), diagonal)


def test_a_vanishing_tau_keeps_the_weight() -> None:
    """Also of an S that is not square, as where one side has no room to double."""
    torch.manual_seed(0)
    small = low_rank(nn.Linear(20, 30).double(), 5)
    core = torch.randn(1, 8, 6, dtype=torch.float64)
    bases = (torch.linalg.qr(torch.randn(1, side, k, dtype=torch.float64)).Q for side, k in ((30, 8), (20, 6)))
    small.set_factors(next(bases), core, next(bases))
    before = small.weight()
    truncate({"": small}, lambda spectra: {"": rank_within(spectra[""], 1e-12)}, {})
    assert small.rank == 6
    torch.testing.assert_close(small.weight(), before, rtol=0, atol=1e-12)


def test_the_spectrum_of_a_grouped_layer_weighs_all_groups() -> None:
    small, seen = low_rank(nn.Conv2d(6, 6, 3, groups=2), 2), {}

    def choose(spectra: dict[str, np.ndarray]) -> dict[str, int]:
        seen.update(spectra)
        return {"": 2}

    truncate({"": small}, choose, {})
    np.testing.assert_allclose(np.sum(seen[""] ** 2), float(small.weight().square().sum()), rtol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(20, 30), nn.Conv2d(8, 12, 3, groups=2)], ids=["linear", "grouped"])
def test_directions_are_added_where_a_rank_above_those_at_hand_is_chosen(layer: nn.Linear | nn.Conv2d) -> None:
    small = low_rank(layer.double(), 2)
    before, state = small.weight(), {"momentum_buffer": small.S.detach().clone()}
    widen(small, 3, state)
    assert small.rank == 5
    torch.testing.assert_close(small.weight(), before)
    torch.testing.assert_close(state["momentum_buffer"], small.S.detach())
    for basis in (small.U, small.V):
        torch.testing.assert_close(basis.mT @ basis, torch.eye(5, dtype=torch.float64).expand(len(basis), -1, -1))
