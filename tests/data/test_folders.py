import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lrsearch.data import SplitName, Splits, load_data
from lrsearch.errors import LrsearchError
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.gate import DeviceGate
from lrsearch.models import build_model

DATA = Path(os.environ.get("LRSEARCH_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 40 training and 3 test images of 20x12 pixels; the red channel numbers them."""
    for split, number in (("train", 40), ("test", 3)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = np.full((12, 20, 3), [index + 100 * label, 0, 255], dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{index:02}.png")
    return tmp_path


def red(splits: Splits, split: SplitName) -> list[int]:
    inputs = torch.cat([inputs for inputs, _ in splits.batches(split, 16)])
    return (inputs[:, 0, 0, 0] * 255).round().int().tolist()


def test_an_image_folder_is_cut_without_overlap(folder: Path) -> None:
    splits = load_data({"name": "imagefolder", "root": str(folder), "mean": [0, 0, 0], "std": [1, 1, 1]})
    assert splits.classes == 2 and splits.example_input().shape == (1, 3, 12, 20)
    parts = [red(splits, split) for split in ("train", "calibration", "validation")]
    assert [len(part) for part in parts] == [72, 4, 4]
    assert sorted(value for part in parts for value in part) == [*range(40), *range(100, 140)]
    assert red(splits, "test") == [0, 1, 2, 100, 101, 102]


def test_val_stands_for_test(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    assert len(red(load_data({"name": "imagefolder", "root": str(folder)}), "test")) == 6


def test_images_are_scaled_to_size(folder: Path) -> None:
    splits = load_data({"name": "imagefolder", "root": str(folder), "size": 8})
    assert splits.example_input().shape == (1, 3, 8, 8)
    inputs, _ = next(iter(splits.batches("train", 4, seed=0)))
    assert inputs.shape == (4, 3, 8, 8)
    pixels = torch.tensor([0.0, 0.0, 1.0])
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    first = next(iter(splits.batches("test", 1)))[0][0]
    assert torch.allclose(first, ((pixels - mean) / std).view(3, 1, 1).expand(3, 8, 8), atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_imagenets_random_crops_depend_on_the_seed_only(folder: Path, workers: int) -> None:
    (folder / "test").rename(folder / "val")
    for path in folder.glob("train/*/*.png"):  # plain images would hide where they were cropped
        noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)

    def batch(seed: int | None, num_workers: int) -> torch.Tensor:
        config = {"name": "imagenet", "root": str(folder), "size": 8, "num_workers": num_workers}
        return torch.cat([inputs for inputs, _ in load_data(config).batches("train", 16, seed=seed)])

    torch.manual_seed(workers)
    before = torch.get_rng_state()
    crops = batch(5, workers)
    assert torch.equal(crops, batch(5, 0))
    assert not torch.equal(crops, batch(6, 0))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(torch.unique(crops.flatten(1), dim=0)) == len(crops)
    assert len(torch.unique(batch(None, 0).flatten(1), dim=0)) == 1


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda root: (root / "train").rename(root / "training"), r"train does not exist; expected class folders"),
        (lambda root: (root / "test").rename(root / "tests"), r"test does not exist; expected .*/test or .*/val"),
        (lambda root: (root / "test" / "dog").rename(root / "test" / "fox"), "class 'dog' is in only one of"),
        (lambda root: (root / "train" / "new").mkdir(), "Found no valid file for the classes new"),
    ],
)
def test_a_folder_of_another_shape_is_one_clear_sentence(
    damage: Callable[[Path], None], sentence: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(LrsearchError, match=sentence) as caught:
        load_data({"name": "imagefolder", "root": str(folder)})
    assert "\n" not in str(caught.value)


def test_an_image_that_cannot_be_read_is_named(folder: Path) -> None:
    splits = load_data({"name": "imagefolder", "root": str(folder)})
    (folder / "test" / "dog" / "01.png").write_bytes(b"no image")
    with pytest.raises(LrsearchError, match=r"dog/01\.png cannot be read"):
        list(splits.batches("test", 4))


@pytest.mark.skipif(not (DATA / "cifar10.tar.xz").exists(), reason="needs the CIFAR-10 image folder")
def test_the_fine_tuned_resnet20_is_as_good_as_published_on_jpeg_images(tmp_path: Path) -> None:
    with tarfile.open(DATA / "cifar10.tar.xz") as archive:
        for member in archive:
            if member.name.startswith("train"):
                break
            if member.isfile() and int(Path(member.name).stem) < 60:
                image = tmp_path / member.name
                image.parent.mkdir(parents=True, exist_ok=True)
                image.write_bytes(archive.extractfile(member).read())
    for path in sorted(tmp_path.glob("test/*/00[45]?.jpg")):
        place = tmp_path / "train" / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)
    splits = load_data({"name": "imagefolder", "root": str(tmp_path)})
    model = build_model({"name": "resnet20", "weights": str(DATA / "resnet20_cifar10_jpeg.pt")})
    accuracy = evaluate(model, splits.batches("test", 100), torch.device("cpu"), DeviceGate("cpu", tmp_path))[
        "accuracy"
    ]
    labels = torch.cat([targets for _, targets in splits.batches("test", 100)])
    # 88.02 % on all 10,000; four standard deviations of the share among 400.
    assert len(labels) == 400 and accuracy == pytest.approx(88.02, abs=6.5)
