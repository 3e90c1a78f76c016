"""Images whose every pixel has a class, and Pascal VOC 2012."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lrsearch.data.images import IMAGENET, Normalization, drawn_for, read_image
from lrsearch.data.scores import IGNORED, mean_iou
from lrsearch.data.splits import HELD_OUT, Splits, stratified
from lrsearch.errors import LrsearchError

_VOID = 255
"""Of a mask's pixels on the borders of objects, in Pascal VOC."""

Sample = tuple[Tensor, Tensor]
"""Pixels (3, H, W) in bytes and the mask (H, W) of their classes, in the types that torchvision's transforms know."""


@dataclass(frozen=True)
class SegmentationFiles(Dataset[Sample]):
    """Images and masks that are read from their files when asked for.

    Attributes:
        files: paths of each image and of its mask.
        transform: from a sample to one of the network's input size.
        augmentation: the same for training, drawing from torch's global random state.
        normalization: of the pixels, afterwards.
        seed: what the augmentation depends on, besides the image's index; None for the plain transform.
    """

    files: Sequence[tuple[Path, Path]]
    transform: Callable[[Sample], Sample]
    augmentation: Callable[[Sample], Sample]
    normalization: Normalization
    seed: int | None = None

    def augmented(self, seed: int) -> SegmentationFiles:
        """The same images, augmented as ``seed`` decides."""
        return replace(self, seed=seed)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """The normalised image (3, H, W) and its classes (H, W)."""
        sample = _read(*self.files[index])
        if self.seed is None:
            pixels, mask = self.transform(sample)
        else:
            with drawn_for(self.seed, index):
                pixels, mask = self.augmentation(sample)
        classes = torch.as_tensor(mask).long()
        return self.normalization(torch.as_tensor(pixels).float() / 255), classes.where(classes != _VOID, IGNORED)


def voc2012(root: str, size: int = 513, seed: int = 0, num_workers: int = 2) -> Splits:
    """Pascal VOC 2012's 21 classes of pixels; accuracy is the mean intersection over union.

    Training images are scaled at random from 1/2 to 2 times ``size``, cropped and mirrored; all others are scaled to
    ``size`` exactly (ALDS supplement, B.3). Its validation set is the test split. The extra labels of Hariharan et
    al. 2011 are used where they are: ``SegmentationClassAug`` with ``ImageSets/Segmentation/trainaug.txt``.

    Args:
        root: holds ``VOCdevkit/VOC2012``, or what is in it.
        size: height and width of the inputs.
        seed: by which the training images are cut into splits.
        num_workers: processes that read images.
    """
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    folder = _devkit(Path(root).expanduser())
    fill = {tv_tensors.Image: 0, tv_tensors.Mask: _VOID}
    transform = v2.Resize((size, size))
    augmentation = v2.Compose([
        v2.RandomResize(size * 256 // 513, size * 1024 // 513 + 1),
        v2.RandomCrop(size, pad_if_needed=True, fill=fill),
        v2.RandomHorizontalFlip(),
    ])  # fmt: skip
    extra = (folder / "ImageSets/Segmentation/trainaug.txt").is_file() and (folder / "SegmentationClassAug").is_dir()
    labelled = _files(folder, "trainaug", "SegmentationClassAug") if extra else _files(folder, "train")
    parts = stratified(torch.zeros(len(labelled)), HELD_OUT, seed)
    calibration, validation, train, test = (
        SegmentationFiles(files, transform, augmentation, IMAGENET)
        for files in (*([labelled[index] for index in part.tolist()] for part in parts), _files(folder, "val"))
    )
    return Splits("voc2012", train, calibration, validation, test, classes=21, num_workers=num_workers, score=mean_iou)


def _read(image: Path, mask: Path) -> Sample:
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    classes = functional.pil_to_tensor(read_image(mask, mode=None))[0]
    return tv_tensors.Image(read_image(image)), tv_tensors.Mask(classes)


def _devkit(root: Path) -> Path:
    for folder in (root, root / "VOCdevkit" / "VOC2012", root / "VOC2012"):
        if (folder / "ImageSets" / "Segmentation").is_dir():
            return folder
    raise LrsearchError(
        f"data.root: folder {root} holds no Pascal VOC 2012, expected {root}/VOCdevkit/VOC2012 with JPEGImages, "
        "SegmentationClass and ImageSets/Segmentation; nothing is downloaded"
    )


def _files(folder: Path, listed: str, masks: str = "SegmentationClass") -> list[tuple[Path, Path]]:
    path = folder / "ImageSets" / "Segmentation" / f"{listed}.txt"
    try:
        names = path.read_text().split()
    except OSError as error:
        raise LrsearchError(f"data.root: {path} cannot be read: {error.strerror}") from error
    return [(folder / "JPEGImages" / f"{name}.jpg", folder / masks / f"{name}.png") for name in names]
