import torch
from hypothesis import given
from hypothesis import strategies as st

from lrsearch.data.splits import stratified


@given(
    targets=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    fractions=st.lists(st.floats(0, 0.3), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_every_item_is_in_one_part_and_classes_keep_their_shares(
    targets: list[int], fractions: list[float], seed: int
) -> None:
    labels = torch.tensor(targets)
    parts = stratified(labels, fractions, seed)
    assert len(parts) == len(fractions) + 1
    assert torch.cat(parts).sort().values.tolist() == list(range(len(targets)))
    for part, fraction in zip(parts, fractions, strict=False):
        for label in set(targets):
            members = int((labels == label).sum())
            assert abs(int((labels[part] == label).sum()) - fraction * members) <= 1


def test_different_seeds_draw_different_items() -> None:
    labels = torch.arange(1000) % 10
    first, second = (stratified(labels, [0.1], seed)[0] for seed in (0, 1))
    assert len(first) == len(second) == 100
    assert len(set(first.tolist()) & set(second.tolist())) < 40
