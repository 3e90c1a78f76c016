"""Batches of a data set: in order, or shuffled and augmented as a seed decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sized
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lrsearch.data.seeds import derived_seed

Augment = Callable[[Tensor, Generator], Tensor]
"""A random change of a batch of inputs, on any device, drawn from the generator, which is the CPU's."""


@runtime_checkable
class Augmentable(Protocol):
    """A data set that augments its items one by one as it reads them."""

    def augmented(self, seed: int) -> Dataset[Any]:
        """The same items, augmented as ``seed`` decides."""


class Batches:
    """Batches of (inputs, targets) that can be iterated again and again, always the same.

    The batches' sizes differ by at most one, so that none is too small for batch norm. Data sets held in
    memory are cut by index where they are, a GPU's memory too; all others go through a DataLoader, onto the CPU. The
    global random state is neither used nor changed.

    Args:
        dataset: items of (input, target).
        batch_size: the largest size of a batch.
        seed: None for the data set's order and no augmentation; else what order and augmentation depend on.
        augment: applied to each batch of inputs where a seed is given.
        num_workers: processes that read items beside this one.
        pin_memory: whether the DataLoader puts batches where a GPU can fetch them by itself.
        share: (rank, size) of a process that reads only its share of every batch; shares differ by one item at most.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        *,
        seed: int | None = None,
        augment: Augment | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._dataset = dataset
        self._items = len(cast(Sized, dataset))
        self._batch_size = batch_size
        self._seed = seed
        self._augment = augment
        self._num_workers = num_workers
        self._pin_memory = pin_memory
        self._rank, self._size = share

    def __len__(self) -> int:
        """The number of batches."""
        return math.ceil(self._items / self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Start reading; worker processes are started here, not at the first batch."""
        if self._seed is None:
            return self._read(torch.arange(self._items), seed=0)
        generator = Generator().manual_seed(self._seed)
        order = torch.randperm(self._items, generator=generator)
        if self._rank:
            generator.manual_seed(derived_seed(self._seed, self._rank))
        batches = self._read(order, self._seed)
        if self._augment is None:
            return batches
        augment = self._augment
        return ((augment(inputs, generator), targets) for inputs, targets in batches)

    def _read(self, order: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        whole = order.tensor_split(len(self)) if len(self) else ()
        parts = [part.tensor_split(self._size)[self._rank] for part in whole]
        dataset = self._dataset
        if isinstance(dataset, TensorDataset):
            return (dataset[part] for part in parts)
        if isinstance(dataset, Augmentable) and self._seed is not None:
            dataset = dataset.augmented(seed)
        loader = DataLoader(
            dataset,
            batch_sampler=[part.tolist() for part in parts],
            num_workers=self._num_workers,
            pin_memory=self._pin_memory,
            generator=Generator().manual_seed(seed),
        )
        return iter(loader)
