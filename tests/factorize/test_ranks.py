import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.factorize import LayerShape, layer_cost
from lrsearch.factorize.ranks import Decomposition, of_rank, rank_cap
from lrsearch.factorize.stages import max_cp_rank, max_rank, max_tucker_ranks
from lrsearch.recipe import Factorization

SHAPES = st.builds(
    lambda outputs, inputs, kernel, groups: LayerShape(outputs * groups, inputs * groups, kernel, groups),
    st.integers(1, 20),
    st.integers(1, 20),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 3),
)


@settings(max_examples=300, deadline=None)
@given(SHAPES, st.sampled_from(["tt", "cp", "cp4"]))
def test_the_cap_is_the_largest_rank_that_saves_parameters(shape: LayerShape, decomposition: Decomposition) -> None:
    limit = max_rank(shape, 0, 1)
    if shape.kernel != (1, 1):
        limit = max(max_tucker_ranks(shape)) if decomposition == "tt" else max_cp_rank(shape, decomposition == "cp4")
    dense = layer_cost(shape, Factorization(kind="dense")).params
    smaller = [
        rank for rank in range(1, limit + 1) if layer_cost(shape, of_rank(shape, decomposition, rank)).params < dense
    ]
    assert rank_cap(shape, decomposition) == max(smaller, default=0)


@pytest.mark.parametrize(
    ("decomposition", "shape", "cap"),
    [
        ("tt", LayerShape(16, 16, (3, 3)), 14),
        ("cp", LayerShape(16, 16, (3, 3)), 56),  # 2304 / 41
        ("cp", LayerShape(512, 512, (3, 3)), 2283),
        ("tt", LayerShape(512, 512, (3, 3)), 458),
        ("tt", LayerShape(10, 40), 7),
    ],
)
def test_published_and_hand_counted_caps(decomposition: Decomposition, shape: LayerShape, cap: int) -> None:
    assert rank_cap(shape, decomposition) == cap
