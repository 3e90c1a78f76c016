import pytest
import torch
from sklearn.datasets import load_digits

from lrsearch.data import SplitName, Splits, load_data

SPLITS: tuple[SplitName, ...] = ("train", "calibration", "validation", "test")


def images(splits: Splits, split: SplitName) -> torch.Tensor:
    return torch.cat([inputs for inputs, _ in splits.batches(split, 500)]).flatten(1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_splits_hold_every_image_exactly_once(seed: int) -> None:
    splits = load_data({"name": "digits", "seed": seed})
    together = torch.cat([images(splits, split) for split in SPLITS])
    labels = torch.cat([targets for split in SPLITS for _, targets in splits.batches(split, 500)])
    source, known = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    # A linear map back to 0..16 recovers the pixels, so that the sets of images can be compared exactly.
    low, high = together.min(), together.max()
    pixels = ((together - low) / (high - low) * 16).round()
    found, expected = torch.column_stack((pixels, labels)), torch.column_stack((source, known))
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))


def test_sizes_and_classes_are_balanced() -> None:
    splits = load_data({"name": "digits"})
    sizes = {split: len(getattr(splits, split)) for split in SPLITS}
    assert sizes == {"train": 1088, "calibration": 107, "validation": 243, "test": 359}
    assert splits.classes == 10 and splits.example_input().shape == (1, 1, 8, 8)
    for split in SPLITS:
        counts = torch.cat([targets for _, targets in splits.batches(split, 500)]).bincount(minlength=10)
        assert counts.max() - counts.min() <= 0.15 * counts.float().mean()


def test_the_seed_alone_decides_the_cut() -> None:
    torch.manual_seed(1)
    first = load_data({"name": "digits"})
    torch.manual_seed(2)
    second, third = load_data({"name": "digits", "seed": 0}), load_data({"name": "digits", "seed": 1})
    assert torch.equal(images(first, "test"), images(second, "test"))
    assert not torch.equal(images(first, "test"), images(third, "test"))


def test_training_pixels_are_normalised() -> None:
    pixels = images(load_data({"name": "digits"}), "train")
    assert abs(pixels.mean()) < 0.05 and abs(pixels.std() - 1) < 0.05
