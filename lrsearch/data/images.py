"""Images in memory and on disk, and what is done to them on their way to the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from lrsearch.data.seeds import derived_seed
from lrsearch.errors import LrsearchError


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def checked(cls, mean: Sequence[float], std: Sequence[float], channels: int) -> Normalization:
        """What a user gave, as a normalisation.

        Raises:
            ValueError: either has not one number per channel, or a deviation is not positive.
        """
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != channels or not all(isinstance(value, int | float) for value in values):
                raise ValueError(f"{name} is {values!r}, expected {channels} numbers")
        if min(std) <= 0:
            raise ValueError(f"std is {std!r}, expected positive numbers")
        return cls(tuple(mean), tuple(std))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise one image (C, H, W) or a batch (N, C, H, W) of pixels in [0, 1]."""
        mean, std = (torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    @property
    def black(self) -> tuple[float, ...]:
        """What a black pixel becomes."""
        return tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What networks trained on ImageNet expect."""


class ImageTensors(TensorDataset):
    """Images kept in memory as bytes, normalised when they are taken out.

    Args:
        images: (N, C, H, W), uint8.
        targets: (N,), int64.
        normalization: of the pixels scaled to [0, 1].
    """

    def __init__(self, images: Tensor, targets: Tensor, normalization: Normalization) -> None:
        super().__init__(images, targets)
        self._normalization = normalization

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        """The item at an index, or the batch at a tensor of indices."""
        images, targets = self.tensors
        return self._normalization(images[index].float() / 255), targets[index]


@dataclass(frozen=True)
class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Images that are read from their files when asked for.

    Attributes:
        files: path and target of each image.
        transform: from an RGB PIL image to a tensor (C, H, W).
        augmentation: the same for training, drawing from torch's global random state; None for the plain one.
        seed: what the augmentation depends on, besides the image's index; None for the plain transform.
    """

    files: Sequence[tuple[str, int]]
    transform: Callable[[Any], Tensor]
    augmentation: Callable[[Any], Tensor] | None = None
    seed: int | None = None

    def augmented(self, seed: int) -> ImageFiles:
        """The same images, augmented as ``seed`` decides."""
        return replace(self, seed=seed)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Read one image."""
        path, target = self.files[index]
        image = read_image(path)
        if self.seed is None or self.augmentation is None:
            return self.transform(image), target
        with drawn_for(self.seed, index):
            return self.augmentation(image), target


def read_image(path: Path | str, mode: str | None = "RGB") -> Any:
    """An image file as a PIL image, in a colour mode or, with None, in its own.

    Raises:
        LrsearchError: the file cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            file.load()
            return file if mode is None else file.convert(mode)
    except OSError as error:
        raise LrsearchError(f"image {path} cannot be read: {error}") from error


@contextmanager
def drawn_for(seed: int, index: int) -> Iterator[None]:
    """A random state of its own for each image: the same whichever worker reads it, and in whatever order."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, index))
        yield


@dataclass(frozen=True)
class ShiftAndFlip:
    """Pads a batch with black, crops it at random to its size again, and mirrors half of it.

    Attributes:
        pixels: how far an image can be shifted, in each direction.
        black: the value of a black pixel in each channel.
        flip: whether to mirror at all.
    """

    pixels: int
    black: tuple[float, ...]
    flip: bool

    def __call__(self, inputs: Tensor, generator: Generator) -> Tensor:
        """Change (N, C, H, W) images into as many of the same shape, on the same device.

        What is drawn from the generator does not depend on the device.
        """
        number, _, height, width = inputs.shape
        device = inputs.device
        black = torch.tensor(self.black, device=device).view(1, -1, 1, 1)
        padded = functional.pad(inputs - black, (self.pixels,) * 4) + black
        top, left = torch.randint(2 * self.pixels + 1, (2, number, 1), generator=generator).to(device)
        rows = top + torch.arange(height, device=device)
        columns = left + torch.arange(width, device=device)
        if self.flip:
            mirrored = (torch.rand(number, 1, generator=generator) < 0.5).to(device)
            columns = torch.where(mirrored, columns.flip(1), columns)
        image = torch.arange(number, device=device).view(-1, 1, 1)
        # Indexing with three index tensors around the channel puts the channel last.
        moved = padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        # Not ``contiguous``, which leaves one channel as it is: networks would take that for channels-last.
        return moved.clone(memory_format=torch.contiguous_format)
