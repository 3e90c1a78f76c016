"""A sweep whose servers go away and come back: PostgreSQL under its study, and an MLflow server on PostgreSQL."""

import tempfile
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import mlflow
import optuna
import pytest

from lrsearch.files import read_json
from lrsearch.sweep.study_store import STUDY
from tests.sweep import mlflow_server, postgresql
from tests.sweep.leaks import command_lines_with, files_with
from tests.sweep.mlflow_server import MLflowServer
from tests.sweep.test_kill import Sweep

pytestmark = pytest.mark.slow

PASSWORDS = (postgresql.PASSWORD, mlflow_server.PASSWORD)
AWAY = 3.0
"""Seconds of an outage."""
HELD_NETWORK = """
import os
import time
from pathlib import Path
from lrsearch.models.digits import digits_resnet

def network(width):
    model = digits_resnet(width)
    model.register_forward_pre_hook(wait_in_the_last_trial)
    return model

def wait_in_the_last_trial(*_):
    lock = Path("runs/s/trials/2/lock")
    while Path("hold").exists() and lock.exists() and lock.read_text() == str(os.getpid()):
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def server(postgresql, tmp_path_factory):
    server = MLflowServer(tmp_path_factory.mktemp("mlflow"), postgresql.create("mlflow"), PASSWORDS[0])
    yield server
    server.stop()


class ServedSweep(Sweep):
    """A sweep that keeps its study in PostgreSQL and its runs on an MLflow server."""

    def __init__(self, folder, server):
        super().__init__(folder, trials=3, at_once=1)
        self._server = server

    def study(self):
        known = read_json(self.folder / STUDY, "")
        return optuna.load_study(study_name=known["study"], storage=known["url"])

    def mlflow(self):
        return mlflow.MlflowClient(self._server.uri)


@pytest.fixture
def sweep(tmp_path, server, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", postgresql.PASSWORD)
    for name, value in mlflow_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(HELD_NETWORK)
    sweep = ServedSweep(tmp_path, server)
    sweep.space.write_text(sweep.space.read_text().replace("digits_resnet", "'mine:network'"))
    return sweep


@pytest.fixture
def rays_own(monkeypatch):
    """Where Ray keeps its logs and sockets, which want a short path."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def test_sweep_outlives_outages_of_its_servers_and_tells_nobody_their_passwords(
    sweep, server, postgresql, tmp_path, rays_own
):
    hold = tmp_path / "hold"
    hold.touch()
    options = ["--study", postgresql.create("optuna"), "--tracking-uri", server.uri]
    driver = sweep.start("search", str(sweep.space), "--name", "s", *options)
    sweep.wait_for_new("trials/*/checkpoint.pt", driver)
    assert not command_lines_with(*PASSWORDS)
    postgresql.stop()
    time.sleep(AWAY)
    postgresql.start()
    sweep.wait_for_new("trials/*/result.json", driver)
    server.stop()
    time.sleep(AWAY)
    server.start()
    hold.unlink()
    output, _ = driver.communicate(timeout=300)

    assert driver.returncode == 0, output
    assert "the study's database does not answer" in output
    sweep.check_end()
    assert list(rays_own.rglob("*.log"))
    assert not files_with(*PASSWORDS, below=[tmp_path, rays_own, server.folder, postgresql.folder])
    assert not any(password in output for password in PASSWORDS)


@pytest.mark.parametrize("authorization", [{}, {"Authorization": "Basic bHJzZWFyY2g6Z3Vlc3NlZA=="}])
def test_stranger_is_turned_away_by_mlflow(server, authorization):
    for question in ("api/2.0/mlflow/experiments/search?max_results=1", "api/2.0/mlflow-artifacts/artifacts"):
        with pytest.raises(HTTPError) as refused:
            urlopen(Request(f"{server.uri}/{question}", headers=authorization), timeout=20)
        assert refused.value.code == 401


def test_sweep_of_a_stranger_is_refused_in_one_sentence(server, tmp_path):
    driver = Sweep(tmp_path).start("search", str(tmp_path / "space.yaml"), "--tracking-uri", server.uri)
    output, _ = driver.communicate(timeout=120)

    assert driver.returncode == 1
    assert output.splitlines()[-1].startswith(f"error: MLflow store {server.uri} cannot be opened")
