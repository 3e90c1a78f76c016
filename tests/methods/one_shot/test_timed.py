import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import find_layers
from lrsearch.measure.latency import LatencyTable
from lrsearch.methods.base import Task
from lrsearch.methods.one_shot.timed import NOT_FASTER, TimedLayers, isotonic, largest_on_plateau, near
from lrsearch.recipe import Factorization
from tests.methods.one_shot.clockwork import Steps
from tests.methods.zoo import compress


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 64, 3), *(nn.Conv2d(64, 64, 3, padding=1) for _ in range(4)))


def task(table: LatencyTable) -> Task:
    return Task(example_input=torch.randn(1, 3, 12, 12), latency=table)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=6))
def test_the_isotonic_fit_is_the_best_rising_sequence(values: list[float]) -> None:
    """By its optimality conditions: rising; equal to the mean in each level set; no level set should be split."""
    fitted = isotonic(np.array(values))
    assert (np.diff(fitted) >= -1e-12).all()
    residual = np.array(values) - fitted
    for level in np.unique(fitted.round(9)):
        members = np.flatnonzero(abs(fitted - level) < 1e-8)
        assert abs(residual[members].sum()) < 1e-6
        assert (residual[members].cumsum() >= -1e-6).all()


@given(st.integers(1, 500), st.sampled_from([4, 8, 16, 32]), st.integers(1, 600))
def test_ranks_near_are_the_rank_and_multiples_within_two_tiles(rank: int, tile: int, largest: int) -> None:
    expected = {rank} | {
        multiple for multiple in range(tile, largest + 1, tile) if -2 * tile < multiple - rank < 2 * tile
    }
    assert near(rank, tile, largest) == sorted(expected)


def test_the_last_rank_as_fast_as_the_step_below_is_taken() -> None:
    assert largest_on_plateau([1.0, 1.01, 1.02, 2.0], 0) == 2
    assert largest_on_plateau([1.0, 2.0, 3.0], 1) == 1
    assert largest_on_plateau([1.0, 3.0, 1.0], 0) == 0, "two noisy times that average higher are no plateau"


def test_ranks_move_to_the_edge_of_a_step() -> None:
    """At alpha 2 the rank is 38: on a device that rounds up to 16, 48 channels cost what 38 do, 32 less."""
    vanilla, optimised = (
        compress("tucker", {"optimise_ranks": optimise}, network(), task(Steps())) for optimise in (False, True)
    )
    assert {f.ranks for f in vanilla.recipe.layers.values() if f.kind != "dense"} == {(38, 38)}
    assert {f.ranks for f in optimised.recipe.layers.values() if f.kind != "dense"} == {(32, 32)}
    saved = 4 * 0.2 * (1 - 32 / 100)
    assert optimised.metrics["predicted_speedup"] == pytest.approx(1 / (1 - saved))


def test_layers_that_do_not_become_faster_stay_dense_and_say_so() -> None:
    class Fast(Steps):
        dense = 30.0

    recipe = compress("tucker", {"optimise_ranks": True}, network(), task(Fast())).recipe
    assert {recipe.layers[str(i)].reason for i in range(1, 5)} == {NOT_FASTER}


def test_time_needs_an_input() -> None:
    with pytest.raises(LrsearchError, match="optimise_ranks needs an example input"):
        compress("tucker", {"optimise_ranks": True}, network(), Task())


def test_fractions_are_of_the_whole_network() -> None:
    model, given_task = network(), task(Steps())
    layers, _ = find_layers(model, given_task.example_input)
    timed = TimedLayers(model, layers, given_task, "a test")
    dense, half = Factorization(kind="dense"), Factorization(kind="tucker2", ranks=(16, 16))
    assert timed.fractions("1", [dense, half]) == pytest.approx([0.16, 0.16 * 0.16])
