"""A file is complete or absent, whenever its writer dies."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from lrsearch.errors import LrsearchError, StorageFullError
from lrsearch.files import read_json, replacing, write_json


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "file.json"

    write_json(path, {"a": [1, 2.5, None]})

    assert read_json(path, "") == {"a": [1, 2.5, None]}
    assert list(path.parent.iterdir()) == [path]


def write_bytes(data, path):
    path.write_bytes(data.numpy().tobytes())


@pytest.mark.parametrize("write", [torch.save, write_bytes])
def test_full_disk_is_said_to_be_full_and_the_old_file_stays(small_disk, write):
    path = small_disk / "file"
    path.write_text("old")

    with pytest.raises(StorageFullError, match=r"file cannot be written: its storage is full"), replacing(path) as new:
        write(torch.zeros(10**6), new)

    assert path.read_text() == "old"
    assert list(small_disk.iterdir()) == [path]


def test_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"old": True})
    code = (
        "import os, sys, signal; from pathlib import Path; from lrsearch.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('{\"new')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    writer = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )

    assert writer.returncode == -signal.SIGKILL
    assert read_json(path, "") == {"old": True}


def test_missing_file_is_none_and_a_damaged_one_is_named_with_a_remedy(tmp_path):
    assert read_json(tmp_path / "none.json", "") is None
    (tmp_path / "damaged.json").write_text('{"half')

    with pytest.raises(LrsearchError, match=r"damaged\.json is damaged .*; delete it"):
        read_json(tmp_path / "damaged.json", "delete it")
