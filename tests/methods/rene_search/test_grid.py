from hypothesis import given
from hypothesis import strategies as st

from lrsearch.methods.rene_search.grid import first_grid, is_at_end, narrowed, step_sizes


def test_the_stages_of_figure_3() -> None:
    """From 100..800 it chooses 200, then 240 of [150, 250], then a rank of [235, 245]; 801 is the dense layer."""
    assert step_sizes(100, 10, None) == [100, 10, 1]
    assert first_grid(100, 801) == [*range(100, 801, 100), 801]
    assert narrowed(200, 100, 10, 801) == list(range(150, 251, 10))
    assert narrowed(240, 10, 1, 801) == list(range(235, 246))


def test_stages_end_at_step_1_or_where_they_are_told_to() -> None:
    assert step_sizes(10, 4, None) == [10, 2, 1]
    assert step_sizes(100, 10, 2) == [100, 10]
    assert step_sizes(1, 2, 5) == [1]


def test_a_layer_smaller_than_the_step_has_its_largest_rank_and_dense_to_start_from() -> None:
    assert first_grid(10, 24) == [10, 20, 24]
    assert first_grid(10, 5) == [4, 5]
    assert narrowed(4, 10, 1, 4) == [1, 2, 3, 4]


@given(st.integers(2, 900), st.integers(1, 100), st.integers(2, 12), st.data())
def test_every_rank_can_be_reached_from_the_candidate_next_to_it(
    cap: int, step: int, factor: int, data: st.DataObject
) -> None:
    """Choosing in each stage the candidate nearest to a rank ends at that rank, if the first grid spans it."""
    sizes = step_sizes(step, factor, None)
    grid = first_grid(step, cap)
    wanted = data.draw(st.integers(max(1, grid[0] - step // 2), min(cap, grid[-1] + step // 2)))
    for size, finer in zip(sizes, [*sizes[1:], 1], strict=True):
        assert grid == sorted(set(grid))
        assert 1 <= grid[0] <= grid[-1] <= cap
        chosen = min(grid, key=lambda rank: abs(rank - wanted))
        grid = narrowed(chosen, size, finer, cap)
        assert chosen in grid
    assert chosen == wanted


def test_better_ranks_may_lie_beyond_a_grid_unless_it_ends_where_ranks_do() -> None:
    grid = [15, 20, 25]
    assert [is_at_end(rank, grid, 30) for rank in grid] == [True, False, True]
    assert not is_at_end(25, grid, 25)
    assert not is_at_end(1, [1, 2, 3], 25)
