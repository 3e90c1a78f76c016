from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from lrsearch.data.images import ImageTensors, Normalization, ShiftAndFlip

NORMALIZATION = Normalization((0.2, 0.5), (0.5, 2.0))


def test_normalisation_of_one_image_and_of_a_batch_agree_with_arithmetic() -> None:
    pixels = torch.rand(3, 2, 4, 5)
    batch = NORMALIZATION(pixels)
    assert torch.allclose(batch[:, 0], (pixels[:, 0] - 0.2) / 0.5)
    assert torch.allclose(batch[:, 1], (pixels[:, 1] - 0.5) / 2)
    assert torch.equal(NORMALIZATION(pixels[1]), batch[1])
    assert torch.allclose(NORMALIZATION(torch.zeros(2, 1, 1)).flatten(), torch.tensor(NORMALIZATION.black))


@pytest.mark.parametrize(
    ("mean", "std", "sentence"),
    [([0.5], [1, 1], "mean is"), ([0, 0], ["a", 1], "std is"), ([0, 0], [0, 1], "positive")],
)
def test_a_normalisation_is_checked(mean: list[Any], std: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Normalization.checked(mean, std, channels=2)


def test_bytes_in_memory_are_scaled_and_normalised() -> None:
    images = torch.randint(256, (4, 2, 3, 3), dtype=torch.uint8)
    dataset = ImageTensors(images, torch.arange(4), NORMALIZATION)
    inputs, targets = dataset[torch.tensor([2, 0])]
    assert torch.allclose(inputs, NORMALIZATION(images[[2, 0]].double() / 255).float(), atol=1e-6)
    assert targets.tolist() == [2, 0]
    assert torch.equal(dataset[2][0], inputs[0]) and dataset[2][1] == 2


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    pixels=st.integers(1, 3),
    flip=st.booleans(),
    seed=st.integers(0, 99),
)
def test_each_image_is_one_of_its_shifts(height: int, width: int, pixels: int, flip: bool, seed: int) -> None:
    images = torch.randn(5, 2, height, width)
    black = (-7.0, 9.0)
    augmented = ShiftAndFlip(pixels, black, flip)(images, Generator().manual_seed(seed))
    assert augmented.shape == images.shape and augmented.is_contiguous()
    for image, result in zip(images, augmented, strict=True):
        padded = torch.empty(2, height + 2 * pixels, width + 2 * pixels)
        padded[0], padded[1] = black
        padded[:, pixels : pixels + height, pixels : pixels + width] = image
        shifts = [
            padded[:, top : top + height, left : left + width]
            for top in range(2 * pixels + 1)
            for left in range(2 * pixels + 1)
        ]
        candidates = shifts + ([shift.flip(2) for shift in shifts] if flip else [])
        assert any(torch.allclose(result, candidate, atol=1e-5) for candidate in candidates)


def test_every_shift_and_its_mirror_image_is_as_likely() -> None:
    """Of 9,000 images 500 are expected in each of 18 ways; six standard deviations are 130."""
    images = torch.randn(1, 1, 5, 5).expand(9000, 1, 5, 5)
    augmented = ShiftAndFlip(1, (0.0,), flip=True)(images, Generator().manual_seed(0))
    counts = torch.unique(augmented.flatten(1), dim=0, return_counts=True)[1]
    assert len(counts) == 18 and int(counts.min()) > 370 and int(counts.max()) < 630


@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_images_lie_in_memory_as_images_do(channels: int) -> None:
    """Strides tell a network in which layout to compute, also where one channel leaves them open."""
    images = torch.randn(4, channels, 5, 6)
    assert ShiftAndFlip(1, (0.0,) * channels, flip=True)(images, Generator()).stride() == images.stride()
