"""A Pascal VOC of a few generated images."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = np.random.default_rng(5).integers(40, 256, (21, 3), dtype=np.uint8)
"""Of the pixels of each class."""
BORDER = 255


def write_voc(root: Path, train: int = 40, val: int = 4, extra: int = 0, side: int = 48, classes: int = 21) -> Path:
    """Images of two classes, one beside the other, with a border of no class between them; their left side first."""
    folder = root / "VOCdevkit" / "VOC2012"
    random = np.random.default_rng(0)
    lists = {"train": train, "val": val, "trainaug": extra}
    for listed, number in lists.items():
        masks = folder / ("SegmentationClassAug" if listed == "trainaug" else "SegmentationClass")
        names = [f"{listed}_{index}" for index in range(number)]
        if not names:
            continue
        for name in names:
            left, right = random.choice(classes, 2, replace=False)
            mask = np.full((side, side + 6), left, dtype=np.uint8)
            mask[:, side // 2 :] = right
            pixels = COLOURS[mask]
            mask[:, side // 2 - 2 : side // 2 + 2] = BORDER
            _save(Image.fromarray(pixels), folder / "JPEGImages" / f"{name}.jpg", quality=95)
            image = Image.fromarray(mask)
            if listed != "trainaug":
                image.putpalette(random.integers(0, 256, 768, dtype=np.uint8).tobytes())
            _save(image, masks / f"{name}.png")
        lines = folder / "ImageSets" / "Segmentation" / f"{listed}.txt"
        lines.parent.mkdir(parents=True, exist_ok=True)
        lines.write_text("\n".join(names) + "\n")
    return root


def _save(image: Image.Image, path: Path, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
