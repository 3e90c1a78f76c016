from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.training import read_history
from lrsearch.training.checkpoint import Checkpoint, Epoch

HISTORY = [Epoch(1, 2, 0.5, 90.0, 0.1, 1.5)]


def saved(path: Path, width: int = 3) -> Checkpoint:
    model = nn.Linear(width, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, width)).sum().backward()
    optimizer.step()
    checkpoint = Checkpoint(model.state_dict(), optimizer.state_dict(), HISTORY, {"seed": 1})
    checkpoint.save(path)
    return checkpoint


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    written, read = saved(path), Checkpoint.load(path)
    assert read.history == read_history(path) == HISTORY and read.origin == {"seed": 1}
    assert torch.equal(read.model["weight"], written.model["weight"])
    momentum = read.optimizer["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, written.optimizer["state"][0]["momentum_buffer"])
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_is_numbers_only() -> None:
    row = Epoch(1, 2, 0.5, 90.0, 0.1, 1.5, {"pixel_accuracy": 95.0}).row()
    assert row.pop("pixel_accuracy") == 95.0
    assert row == {"epoch": 1, "epochs": 2, "loss": 0.5, "accuracy": 90.0, "lr": 0.1, "seconds": 1.5}


def test_any_truncation_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    saved(path)
    content = path.read_bytes()
    for kept in (0, 1, 10, len(content) // 3, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:kept])
        with pytest.raises(LrsearchError, match=r"checkpoint\.pt cannot be read .*; delete it to restart") as caught:
            read_history(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{"epochs": 3}, [1], 7, {"format": 1}, {"format": 2, "history": [{"epoch": 1}]}])
def test_another_torch_file_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(LrsearchError, match="delete it to restart"):
        read_history(tmp_path / "other.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LrsearchError, match=r"nothing\.pt cannot be read"):
        read_history(tmp_path / "nothing.pt")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    saved(path)

    def half(content: object, file: Path) -> None:
        file.write_bytes(b"half a check")
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", half)
        with pytest.raises(OSError, match="no space"):
            saved(path)
    assert read_history(path) == HISTORY
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("width", "origin", "sentence"),
    [(3, {"seed": 2}, "with seed 1, not 2"), (4, {"seed": 1}, "belongs to another network")],
)
def test_another_trainings_checkpoint_is_refused(
    width: int, origin: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    saved(path)
    model = nn.Linear(width, 2)
    with pytest.raises(LrsearchError, match=sentence):
        Checkpoint.load(path).restore(path, origin, model, torch.optim.SGD(model.parameters()))
