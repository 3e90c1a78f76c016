import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from lrsearch.data import load_data
from lrsearch.errors import LrsearchError

DATA = Path(os.environ.get("LRSEARCH_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def write_idx(path: Path, values: np.ndarray[Any, Any]) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_files_are_read_and_cut(name: str, folder: str, tmp_path: Path) -> None:
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix, number in (("train", 1000), ("t10k", 50)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", random.integers(0, 256, (number, 28, 28)))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(number) % 10)
    splits = load_data({"name": name, "root": str(tmp_path)})
    sizes = [len(getattr(splits, split)) for split in ("train", "calibration", "validation", "test")]
    assert sizes == [900, 50, 50, 50]
    assert splits.name == name and splits.classes == 10 and splits.example_input().shape == (1, 1, 28, 28)
    inputs, targets = next(iter(splits.batches("train", 32, seed=0)))
    assert inputs.shape[1:] == (1, 28, 28) and targets.dtype == torch.int64


@pytest.mark.skipif(not (DATA / "mnist10k").is_dir(), reason="needs MNIST's test images")
def test_real_mnist_is_read(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        content = gzip.decompress((DATA / "mnist10k" / f"t10k-{kind}.gz").read_bytes())
        for prefix in ("train", "t10k"):
            (raw / f"{prefix}-{kind}").write_bytes(content)
    splits = load_data({"name": "mnist", "root": str(tmp_path)})
    inputs = torch.cat([inputs for inputs, _ in splits.batches("train", 1000)])
    assert abs(inputs.mean()) < 0.05 and abs(inputs.std() - 1) < 0.05
    counts = torch.cat([targets for _, targets in splits.batches("validation", 1000)]).bincount()
    assert counts.tolist() == pytest.approx([50] * 10, abs=8)


class FakeCifar:
    """Stands for torchvision's class, whose files cannot be made up: their checksums are compared."""

    def __init__(self, root: Path, train: bool, download: bool) -> None:
        assert not download
        number = 400 if train else 30
        self.data = np.random.default_rng(0).integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)
        self.targets = [index % 10 for index in range(number)]


@pytest.mark.parametrize(("name", "dataset"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_cifar_is_cut_and_its_channels_come_first(
    name: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets, dataset, FakeCifar)
    config = {"name": name, "root": str(tmp_path), "mean": [0, 0, 0], "std": [1, 1, 1]}
    splits = load_data(config)
    sizes = [len(getattr(splits, split)) for split in ("train", "calibration", "validation", "test")]
    assert sizes == [360, 20, 20, 30]
    inputs, targets = next(iter(splits.batches("test", 30)))
    source = FakeCifar(tmp_path, train=False, download=False)
    assert torch.allclose(inputs[7, 2, 3, 4], torch.tensor(source.data[7, 3, 4, 2] / 255).float())
    assert targets.tolist() == source.targets


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_a_missing_folder_and_an_empty_one_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(LrsearchError, match=r"nowhere does not exist, expected .*nothing is downloaded"):
        load_data({"name": name, "root": str(tmp_path / "nowhere")})
    with pytest.raises(LrsearchError, match=f"holds no intact {name}, expected"):
        load_data({"name": name, "root": str(tmp_path)})
    assert not any(tmp_path.iterdir())


def test_a_truncated_file_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (raw / f"{prefix}-{kind}").write_bytes(b"\x00\x00")
    with pytest.raises(LrsearchError, match="holds no intact mnist"):
        load_data({"name": "mnist", "root": str(tmp_path)})
