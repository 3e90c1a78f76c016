import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside it


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store with its tables made, because making them takes seconds."""
    from lrsearch.tracking.store import connect

    folder = tmp_path_factory.mktemp("empty")
    connect(None, folder)
    return folder / "mlflow.db"


@pytest.fixture(scope="module")
def empty_store_of_module(tmp_path_factory, empty_store):
    """A storage folder with a store of its own, for all tests of a module."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def drawn_storage(tmp_path, empty_store, monkeypatch):
    """A storage folder of its own (a name with a space), and a tracker that does not rest."""
    folder = tmp_path / "my runs"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    monkeypatch.setattr("lrsearch.tracking.tracker._PACE", 0.01)
    return folder


@pytest.fixture
def storage(drawn_storage, monkeypatch):
    """The same with placeholders for the pictures of the front, which take a second to draw."""

    def write_placeholders(folder, *_):
        for name in ("pareto.html", "pareto.png", "front.csv"):
            (folder / name).touch()

    monkeypatch.setattr("lrsearch.tracking.figures.write_front", write_placeholders)
    return drawn_storage
