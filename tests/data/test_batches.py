from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.utils.data import Dataset, TensorDataset

from lrsearch.data import Batches


class Items(Dataset[tuple[Tensor, int]]):
    """A data set that can only be read item by item."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor([float(index)]), index


def in_memory(number: int) -> TensorDataset:
    return TensorDataset(torch.arange(number).float().view(-1, 1), torch.arange(number))


def noise(inputs: Tensor, generator: Generator) -> Tensor:
    return inputs + torch.rand(inputs.shape, generator=generator)


def collected(batches: Batches) -> list[tuple[list[Any], list[Any]]]:
    return [(inputs.tolist(), targets.tolist()) for inputs, targets in batches]


@given(number=st.integers(0, 60), batch_size=st.integers(1, 20), seed=st.none() | st.integers(0, 9))
def test_every_item_comes_once_in_batches_of_even_size(number: int, batch_size: int, seed: int | None) -> None:
    batches = Batches(in_memory(number), batch_size, seed=seed)
    parts = [targets.tolist() for _, targets in batches]
    assert len(parts) == len(batches)
    flat = [item for part in parts for item in part]
    assert sorted(flat) == list(range(number))
    assert seed is not None or flat == sorted(flat)
    sizes = {len(part) for part in parts}
    assert not sizes or (max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1)


@given(number=st.integers(1, 30), batch_size=st.integers(1, 10), seed=st.none() | st.integers(0, 9))
def test_data_in_memory_and_item_by_item_give_the_same_batches(number: int, batch_size: int, seed: int | None) -> None:
    options: dict[str, Any] = {"seed": seed, "augment": noise}
    assert collected(Batches(in_memory(number), batch_size, **options)) == collected(
        Batches(Items(number), batch_size, **options)
    )


def test_worker_processes_change_nothing() -> None:
    alone, helped = (Batches(Items(50), 8, seed=3, augment=noise, num_workers=number) for number in (0, 2))
    assert collected(alone) == collected(helped)


@pytest.mark.parametrize("dataset", [in_memory, Items])
def test_the_seed_alone_decides_and_the_global_state_is_left_alone(dataset: Callable[[int], Dataset[Any]]) -> None:
    batches = Batches(dataset(20), 6, seed=1, augment=noise)
    torch.manual_seed(1)
    first = collected(batches)
    state = torch.get_rng_state()
    torch.rand(3)
    assert collected(batches) == first
    assert collected(Batches(dataset(20), 6, seed=2, augment=noise)) != first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_seed_nothing_is_augmented() -> None:
    inputs = torch.cat([inputs for inputs, _ in Batches(in_memory(10), 4, augment=noise)])
    assert inputs.flatten().tolist() == list(range(10))
