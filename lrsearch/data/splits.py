"""The four parts of a data set, and how one is cut into parts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset, TensorDataset

from lrsearch.data.batches import Augment, Batches
from lrsearch.data.scores import Score, top1

HELD_OUT = (0.05, 0.05)
"""Parts of a public training set kept for calibration and for validation (ALDS supplement, section B)."""


SplitName = Literal["train", "calibration", "validation", "test"]


@dataclass(frozen=True)
class Splits:
    """A data set cut into parts that share no item.

    Attributes:
        name: of the data set.
        train: what networks are trained on.
        calibration: what data-aware compression and batch-norm re-estimation look at.
        validation: what the search chooses by.
        test: what the front is reported on.
        classes: number of classes.
        augment: a random change of a batch of training inputs, or None.
        num_workers: processes that read items which are not in memory.
        score: how answers are judged: classes of images, or of pixels.
        pin_memory: whether batches that are read from files are put where a GPU can fetch them by itself.
    """

    name: str
    train: Dataset[Any]
    calibration: Dataset[Any]
    validation: Dataset[Any]
    test: Dataset[Any]
    classes: int
    augment: Augment | None = None
    num_workers: int = 0
    score: Score = top1
    pin_memory: bool = False

    def on(self, device: torch.device) -> Splits:
        """The same data with all that is held in memory on a device, so that batches are cut and augmented there.

        What batches hold does not depend on where they are made, but for rounding.
        """
        train, calibration, validation, test = (
            _moved(part, device) for part in (self.train, self.calibration, self.validation, self.test)
        )
        pinned = device.type == "cuda"
        return replace(self, train=train, calibration=calibration, validation=validation, test=test, pin_memory=pinned)

    def batches(
        self,
        split: SplitName,
        batch_size: int,
        *,
        seed: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Batches:
        """Batches of one part, or a process's share of them; shuffled and augmented where there is a ``seed``."""
        return Batches(
            getattr(self, split),
            batch_size,
            seed=seed,
            augment=self.augment,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            share=share,
        )

    def example_input(self) -> Tensor:
        """A batch of one input."""
        inputs: Tensor = self.validation[0][0]
        return inputs.unsqueeze(0)


def _moved(dataset: Dataset[Any], device: torch.device) -> Dataset[Any]:
    if not isinstance(dataset, TensorDataset):
        return dataset
    moved = copy.copy(dataset)
    moved.tensors = tuple(tensor.to(device) for tensor in dataset.tensors)
    return moved


def stratified(targets: Tensor, fractions: Sequence[float], seed: int) -> list[Tensor]:
    """Cut the items of each class at random into parts of the given fractions, and the rest.

    Args:
        targets: (N,) the class of each item.
        fractions: of each part but the last, which takes what is left.
        seed: of the draw; the same for the same targets on every machine.

    Returns:
        For each part, the sorted indices of its items.
    """
    generator = Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in range(len(fractions) + 1)]
    for label in torch.unique(targets):
        members = torch.nonzero(targets == label).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        bounds = (torch.tensor(fractions).cumsum(0) * len(members)).round().long()
        for part, piece in zip(parts, members.tensor_split(bounds), strict=True):
            part.append(piece)
    return [torch.cat(part).sort().values for part in parts]
