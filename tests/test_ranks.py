"""Ranks of a growing set, against their definition."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lrsearch.ranks import Ranks


@st.composite
def point_lists(draw):
    """Few distinct coordinates, so that ties, copies and long chains all happen."""
    objectives = draw(st.integers(1, 4))
    return draw(st.lists(st.tuples(*[st.integers(0, 4)] * objectives), min_size=1, max_size=25))


def dominates(a, b):
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


def ranks_by_peeling(points):
    """The definition: take away the points that none of the rest dominates, again and again."""
    rest, ranks, rank = dict(enumerate(points)), {}, 0
    while rest:
        best = [i for i, p in rest.items() if not any(dominates(q, p) for q in rest.values())]
        for i in best:
            ranks[i] = rank
            del rest[i]
        rank += 1
    return [ranks[i] for i in range(len(points))]


@given(point_lists())
def test_each_added_point_has_the_rank_that_peeling_gives_it(points):
    ranks = Ranks(len(points[0]))
    for count, point in enumerate(points, start=1):
        everything = ranks_by_peeling(points[:count])
        rank = ranks.add(point)
        assert rank == everything[-1]
        assert len(ranks) == count
        for depth in range(max(everything) + 2):
            assert ranks.above(depth) == sum(other < depth for other in everything)


@given(point_lists())
def test_rank_zero_is_the_front_and_no_more_common_than_it(points):
    """An argsort in place of ranks (a known mistake) would give rank 0 to one point alone."""
    ranks = Ranks(len(points[0]))
    for point in points:
        ranks.add(point)
    undominated = sum(not any(dominates(q, p) for q in points) for p in points)
    assert ranks.above(1) == undominated


def test_hundreds_of_points_are_added_in_any_order_with_the_same_layers():
    points = np.random.default_rng(0).integers(0, 50, size=(300, 3)).tolist()
    forward, backward = Ranks(3), Ranks(3)
    for point in points:
        forward.add(point)
    for point in reversed(points):
        backward.add(point)
    expected = ranks_by_peeling([tuple(p) for p in points])
    for depth in range(max(expected) + 1):
        assert forward.above(depth) == backward.above(depth) == sum(r < depth for r in expected)
