"""What the README's page on trust promises of space files, names and the files of a sweep."""

import contextlib
import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lrsearch import load_front
from lrsearch.data import load_data
from lrsearch.errors import LrsearchError
from lrsearch.files import write_json
from lrsearch.models import build_model
from lrsearch.persistence import rebuild
from lrsearch.results import find_network, status, tracking_location
from lrsearch.space import load_space, parse_space
from lrsearch.sweep.store import SweepStore
from lrsearch.sweeps import search
from lrsearch.training.checkpoint import Checkpoint
from tests.sweep.simulator import make_space, open_session, run

EVIL = "evil:run"
PLAIN = yaml.safe_load((Path(__file__).parents[1] / "search_spaces" / "digits.yaml").read_text())
DOCUMENTED = {("model", "name"), ("data", "name")}


def places(content, path=()):
    """Every value of a space file, by the keys that lead to it, and a place for a new key in every mapping."""
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))
    yield (*path, "extra")


def with_value(place, value):
    content = copy.deepcopy(PLAIN)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return content


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module of the working directory that leaves a mark when it is imported; whether it was."""
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('mark').touch()\nrun = dict\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield (tmp_path / "mark").exists
    sys.modules.pop("evil", None)


@pytest.mark.parametrize("place", [p for p in places(PLAIN) if p not in DOCUMENTED], ids=".".join)
def test_space_file_imports_nothing_elsewhere(place, evil, monkeypatch):
    monkeypatch.setattr("lrsearch.sweep.run.run_sweep", use_space)
    monkeypatch.setattr("lrsearch.sweeps._tracker", lambda *_: None)
    with contextlib.suppress(LrsearchError, UsedError):
        search(with_value(place, EVIL), "s", storage="runs")
    assert not evil()


class UsedError(Exception):
    """A sweep got as far as its trials."""


def use_space(space, *_):
    """What a sweep's workers do with a space before they train."""
    load_data(space.data)
    build_model({key: value for key, value in space.model.items() if key != "weights"})
    raise UsedError


@pytest.mark.parametrize("place", sorted(DOCUMENTED), ids=".".join)
def test_space_file_imports_where_it_is_documented(place, evil):
    space = parse_space(with_value(place, EVIL))
    with pytest.raises((LrsearchError, TypeError, AttributeError)):
        use_space(space)
    assert evil()


@pytest.mark.parametrize("tag", ["!!python/object/apply:pathlib.Path.touch", "!!python/name:os.system", "!mine"])
def test_space_file_makes_no_objects(tag, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(PLAIN) + f"extra: {tag} [{tmp_path / 'mark'}]\n")
    with pytest.raises(LrsearchError, match="not valid YAML"):
        load_space(path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "..", "a/../../out", "a\\b", "a\nb", "a\0b", "~", "-out", "."])
def test_names_do_not_leave_their_folder(name, tmp_path):
    runs = tmp_path / "in" / "runs"
    runs.mkdir(parents=True)
    uses = [
        lambda: SweepStore(runs, name),
        lambda: search(make_space().model_dump(mode="json"), name, storage=str(runs)),
        lambda: load_front(name, str(runs)),
        lambda: status(name, str(runs)),
        lambda: find_network(f"{name}:0", str(runs)),
        lambda: tracking_location(name, str(runs)),
    ]
    for use in uses:
        with pytest.raises(LrsearchError, match="sweep name is"):
            use()
    assert [path for path in tmp_path.rglob("*") if path != runs] == [runs.parent]


@pytest.mark.parametrize("trial", ["..", "../secret", "0/../../secret", "/"])
def test_trials_do_not_leave_their_folder(trial, tmp_path):
    run(open_session(make_space(trials=1), tmp_path))
    write_json(tmp_path / "sim" / "secret" / "recipe.json", {})
    with pytest.raises(LrsearchError, match=f"has no complete trial {trial!r}, expected one of 0"):
        find_network(f"sim:{trial}", str(tmp_path))


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("checkpoint.pt", Checkpoint.load),
        ("recipe.json", lambda path: rebuild(path.parent)),
        ("weights.safetensors", lambda path: rebuild({}, weights=path)),
    ],
)
def test_files_of_a_sweep_run_no_code(name, read, write, tmp_path):
    write({"format": 1, "model": Trap(tmp_path / "mark")}, tmp_path / name)
    with pytest.raises((LrsearchError, TypeError)):
        read(tmp_path / name)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("option", ["--storage", "--tracking-uri", "--study"])
@pytest.mark.parametrize("verb", ["search", "submit"])
def test_passwords_are_not_taken_on_a_command_line(verb, option, tmp_path):
    command = [sys.executable, "-m", "lrsearch.cli", verb, "space.yaml", "--address", "auto", "--storage", "/shared"]
    done = subprocess.run([*command, option, "s3://ada:s3cret@there/x"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and f"error: {option} holds a password" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())
