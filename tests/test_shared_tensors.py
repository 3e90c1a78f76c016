"""What trials share is computed once, complete or absent, and right whoever computed it."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from lrsearch import shared_tensors
from lrsearch.shared_tensors import SharedTensors

FORK = multiprocessing.get_context("fork")


def tensors(value=1.0):
    return {"a": torch.full((3, 2), value), "b": torch.arange(4)}


def never():
    pytest.fail("computed again")


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_without_a_folder_nothing_is_kept():
    shared = SharedTensors()
    assert_same(shared.get("x", tensors), tensors())
    assert_same(shared.get("x", lambda: tensors(2)), tensors(2))


def test_whoever_comes_later_finds_what_the_first_computed(tmp_path):
    SharedTensors(tmp_path).get("x", lambda: {"a": tensors()["a"].t()})
    later = SharedTensors(tmp_path)
    for _ in range(2):
        assert_same(later.get("x", never), {"a": tensors()["a"].t()})
    assert_same(later.get("y", lambda: tensors(2)), tensors(2))


def test_names_of_layers_stay_in_the_folder(tmp_path):
    for value, name in enumerate(("../x", "x", "a/b", ".x")):
        SharedTensors(tmp_path / "in").get(name, lambda value=value: tensors(value))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    for value, name in enumerate(("../x", "x", "a/b", ".x")):
        assert_same(SharedTensors(tmp_path / "in").get(name, never), tensors(value))


def test_another_release_has_its_own(tmp_path, monkeypatch):
    SharedTensors(tmp_path).get("x", tensors)
    monkeypatch.setattr(shared_tensors, "__version__", "999.0")
    assert_same(SharedTensors(tmp_path).get("x", lambda: tensors(2)), tensors(2))


def test_a_full_folder_takes_nothing_more_in(tmp_path, monkeypatch):
    kept = SharedTensors(tmp_path)
    kept.get("x", tensors)
    monkeypatch.setattr(shared_tensors, "LIMIT", 100)
    assert_same(kept.get("y", lambda: tensors(2)), tensors(2))
    assert_same(kept.get("y", lambda: tensors(3)), tensors(3))
    assert_same(SharedTensors(tmp_path).get("x", never), tensors())


def test_processes_that_need_the_same_at_once_compute_it_once(tmp_path):
    def need(number, found):
        def compute():
            (tmp_path / f"computed-{number}").touch()
            time.sleep(0.2)
            return tensors(number)

        found.put(SharedTensors(tmp_path / "in").get("x", compute)["a"][0, 0].item())

    found = FORK.SimpleQueue()
    processes = [FORK.Process(target=need, args=(number, found)) for number in range(3)]
    for process in processes:
        process.start()
    values = {found.get() for _ in processes}
    for process in processes:
        process.join()
    assert len(values) == 1
    assert [path.name for path in tmp_path.glob("computed-*")] == [f"computed-{values.pop():.0f}"]


def test_a_process_killed_while_it_writes_leaves_nothing_behind(tmp_path, monkeypatch):
    def die(_, path):
        path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(shared_tensors, "save_file", die)
        process = FORK.Process(target=SharedTensors(tmp_path).get, args=("x", tensors))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert_same(SharedTensors(tmp_path).get("x", lambda: tensors(2)), tensors(2))
