from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrsearch.data import Splits, load_data
from lrsearch.data.images import ImageTensors, Normalization, ShiftAndFlip
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


def photographs() -> Splits:
    """Bytes in memory, as of CIFAR."""
    normalization = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    images = torch.randint(256, (20, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageTensors(images, torch.arange(20), normalization)
    return Splits("bytes", data, data, data, data, classes=20, augment=ShiftAndFlip(2, normalization.black, flip=True))


@pytest.mark.parametrize("make", [photographs, lambda: load_data({"name": "digits"})], ids=["bytes", "floats"])
def test_data_in_memory_is_cut_and_augmented_where_it_is(make: Callable[[], Splits]) -> None:
    """On the meta device, which has no values: any step on another device would fail."""
    splits = make()
    there = splits.on(torch.device("meta"))
    for expected, found in zip(splits.batches("train", 8, seed=1), there.batches("train", 8, seed=1), strict=True):
        assert [tensor.device.type for tensor in found] == ["meta", "meta"]
        assert [(t.shape, t.dtype) for t in found] == [(t.shape, t.dtype) for t in expected]
    same = splits.on(torch.device("cpu"))
    for expected, found in zip(splits.batches("train", 8, seed=1), same.batches("train", 8, seed=1), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
