"""Pascal VOC from a folder: classes, the border of no class, and masks that follow their images."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lrsearch.data import Splits, load_data
from lrsearch.data.images import IMAGENET
from lrsearch.data.scores import mean_iou
from lrsearch.errors import LrsearchError
from tests.data.voc import COLOURS, write_voc


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    root = write_voc(tmp_path_factory.mktemp("voc"))
    return load_data({"name": "voc2012", "root": str(root), "size": 40, "num_workers": 0})


def seen_classes(images: Tensor) -> tuple[Tensor, Tensor]:
    """The class whose colour each pixel is nearest to, and whether it is near to any."""
    normalised = IMAGENET(torch.from_numpy(COLOURS).float().view(21, 3, 1, 1) / 255).flatten(1)
    distances = torch.cdist(images.movedim(1, -1).reshape(-1, 3), normalised)
    nearest = distances.min(1)
    shape = images[:, 0].shape
    return nearest.indices.view(shape), (nearest.values < 0.15).view(shape)


def test_the_training_list_is_cut_and_the_validation_list_tests(splits: Splits) -> None:
    sizes = [len(getattr(splits, split)) for split in ("train", "calibration", "validation", "test")]
    assert sizes == [36, 2, 2, 4] and splits.classes == 21 and splits.score is mean_iou
    named = {path.stem for split in ("train", "calibration", "validation") for path, _ in getattr(splits, split).files}
    assert named == {f"train_{index}" for index in range(40)}
    inputs, targets = next(iter(splits.batches("test", 4)))
    assert inputs.shape == (4, 3, 40, 40) and targets.shape == (4, 40, 40) and targets.dtype == torch.int64
    assert splits.example_input().shape == (1, 3, 40, 40)


@pytest.mark.parametrize("split", ["test", "train"])
def test_masks_follow_their_images(splits: Splits, split: str) -> None:
    batches = splits.batches(split, 36, seed=None if split == "test" else 3)
    inputs, targets = next(iter(batches))
    seen, clear = seen_classes(inputs)
    judged = (targets >= 0) & clear
    assert judged.float().mean() > 0.4
    assert (seen == targets)[judged].float().mean() > 0.99
    assert set(targets.unique().tolist()) <= {-100, *range(21)} and bool((targets == -100).any())


def test_augmentation_scales_crops_and_mirrors_as_the_seed_decides(splits: Splits) -> None:
    first, again, other = (
        next(iter(splits.batches("train", 36, seed=seed)))[1].flatten(1).sort().values for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    masks = next(iter(splits.batches("train", 36, seed=1)))[1]
    bars = (masks == -100).sum(2).float().median(1).values  # the width of the border, and of padding beside it
    assert len(bars.unique()) > 5
    plain = {path.stem: mask for (path, _), (_, mask) in zip(splits.train.files, splits.train, strict=True)}
    left = torch.stack([mask[20, 0] for mask in plain.values()])
    mirrored = sum(
        bool(mask[20][mask[20] >= 0][:1].ne(side)) for mask, side in zip(_in_order(splits, 1), left, strict=True)
    )
    assert 5 < mirrored < 31


def _in_order(splits: Splits, seed: int) -> list[Tensor]:
    augmented = splits.train.augmented(seed)
    return [augmented[index][1] for index in range(len(augmented))]


def test_extra_labels_are_used_where_they_are(tmp_path: Path) -> None:
    root = write_voc(tmp_path, train=3, val=2, extra=20)
    splits = load_data({"name": "voc2012", "root": str(root / "VOCdevkit"), "size": 32, "num_workers": 0})
    files = [*splits.train.files, *splits.calibration.files, *splits.validation.files]
    assert len(files) == 20 and {mask.parent.name for _, mask in files} == {"SegmentationClassAug"}
    assert set(splits.train[0][1].unique().tolist()) <= {-100, *range(21)}


def test_faults_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LrsearchError, match=r"holds no Pascal VOC 2012, expected .*VOCdevkit/VOC2012"):
        load_data({"name": "voc2012", "root": str(tmp_path)})
    root = write_voc(tmp_path, train=30, val=1)
    (root / "VOCdevkit/VOC2012/SegmentationClass/val_0.png").write_bytes(b"no image")
    splits = load_data({"name": "voc2012", "root": str(root), "size": 32, "num_workers": 0})
    with pytest.raises(LrsearchError, match=r"val_0\.png cannot be read"):
        splits.test[0]
