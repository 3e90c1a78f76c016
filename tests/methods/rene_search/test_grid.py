from hypothesis import given
from hypothesis import strategies as st

from lrsearch.methods.rene_search.grid import first_grid, narrowed, step_sizes


def test_the_stages_of_figure_3() -> None:
    assert step_sizes(100, 10, None) == [100, 10, 1]
    assert first_grid(100, 800) == list(range(100, 801, 100))
    assert narrowed(200, 100, 10, 800) == list(range(150, 251, 10))
    assert narrowed(240, 10, 1, 800) == list(range(235, 246))


def test_stages_end_at_step_1_or_where_they_are_told_to() -> None:
    assert step_sizes(10, 4, None) == [10, 2, 1]
    assert step_sizes(100, 10, 2) == [100, 10]
    assert step_sizes(1, 2, 5) == [1]


def test_a_layer_smaller_than_the_step_has_its_cap_to_start_from() -> None:
    assert first_grid(10, 4) == [4]
    assert narrowed(4, 10, 1, 4) == [1, 2, 3, 4]


@given(st.integers(1, 900), st.integers(1, 100), st.integers(2, 12), st.data())
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
