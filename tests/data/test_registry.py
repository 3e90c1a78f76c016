import sys
from pathlib import Path
from typing import Any

import pytest

from lrsearch.data import data_names, load_data
from lrsearch.errors import LrsearchError


def test_names() -> None:
    small = ["digits", "cifar10", "cifar100", "mnist", "fashion_mnist"]
    assert data_names() == [*small, "imagenet", "imagefolder", "voc2012"]


def test_a_users_data_comes_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data.py").write_text(
        "import torch\n"
        "from torch.utils.data import TensorDataset\n"
        "from lrsearch.data import Splits\n\n\n"
        "def make(number):\n"
        "    data = TensorDataset(torch.randn(number, 3), torch.zeros(number).long())\n"
        "    return Splits('own', data, data, data, data, classes=2)\n\n\n"
        "def wrong():\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    splits = load_data({"name": "own_data:make", "number": 10})
    assert [len(targets) for _, targets in splits.batches("train", 4, seed=0)] == [4, 3, 3]
    with pytest.raises(LrsearchError, match=r"returned int, expected lrsearch\.data\.Splits"):
        load_data({"name": "own_data:wrong"})


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, r"data\.name is None"),
        ({"name": "digist"}, "did you mean 'digits'"),
        ({"name": "digits", "sede": 1}, "'sede' is not known; did you mean 'seed'"),
        ({"name": "digits", "seed": "one"}, "seed='one'"),
        ({"name": "mnist"}, r"data\.root is missing: mnist needs it"),
        ({"name": "imagefolder", "root": "nowhere", "mean": [0.5]}, "expected 3 numbers"),
        ({"name": "imagefolder", "root": "nowhere"}, "nowhere/train does not exist"),
    ],
)
def test_a_bad_entry_gets_one_sentence(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LrsearchError, match=sentence) as caught:
        load_data(config)
    assert "\n" not in str(caught.value)
