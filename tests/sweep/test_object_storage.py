"""A sweep in object storage: begun on one machine and continued on another, with its URI alone."""

import platform
import shutil
import time

import mlflow
import optuna
import pytest

from lrsearch import object_storage
from lrsearch.errors import LrsearchError
from lrsearch.files import read_json, write_json
from lrsearch.results import all_names, load_front, status
from lrsearch.sweep import lease
from lrsearch.sweep.cluster import terminate_as_interrupt
from lrsearch.sweep.store import SweepStore, storage_folder
from lrsearch.sweep.study import read_records
from lrsearch.sweep.study_store import STUDY, choose_database
from lrsearch.sweeps import search
from tests.conftest import S3_SECRET
from tests.sweep.leaks import files_with
from tests.sweep.postgresql import PASSWORD
from tests.sweep.simulator import grid_space, make_space, open_session, run
from tests.sweep.test_kill import Sweep
from tests.sweep.test_study_store import fates


@pytest.fixture
def database(postgresql, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return postgresql.create(f"{tmp_path.name}-{time.monotonic_ns()}")


@pytest.fixture
def store(bucket):
    store = SweepStore(storage_folder(bucket), "sim")
    store.create()
    return store


def test_sweep_goes_on_on_another_machine(bucket, machines, database, tmp_path):
    run(journal := open_session(grid_space(epochs=3), tmp_path / "journal"), trials=12)
    begun = SweepStore(storage_folder(bucket), "sim")
    begun.create()
    choose_database(begun, database)
    run(session := open_session(grid_space(epochs=3), begun.storage), trials=6)
    session.next_trial()  # and the machine dies

    machines.move_to("there")
    store = SweepStore(storage_folder(bucket), "sim")
    store.refresh()
    run(ended := open_session(store.load_space(), store.storage), trials=6)

    assert fates(ended) == fates(journal)
    machines.move_to("laptop")
    assert all_names(bucket) == ["sim"]
    assert status("sim", bucket)["finished"] == sum(record.state == "complete" for record in read_records(store))
    front = load_front("sim", bucket)
    assert [trial.number for trial in front.front] and front.dense is not None


@pytest.mark.parametrize("study", [None, "sqlite:///studies.db"])
def test_study_has_to_be_in_a_database_that_every_machine_reaches(bucket, study):
    with pytest.raises(LrsearchError, match="expected --study with a database that every machine reaches"):
        search(make_space().model_dump(mode="json"), "sim", storage=bucket, study=study)


def test_driver_of_another_machine_is_respected_until_it_is_forgotten(store, monkeypatch):
    path = store.folder / lease.LEASE
    write_json(path, {"id": "theirs", "holder": "process 1 on another-machine", "until": time.time() + 60})
    assert store.is_running()

    with (
        pytest.raises(LrsearchError, match=r"'sim' is already being run by process 1 on another-machine"),
        store.lock(),
    ):
        pass

    write_json(path, {"id": "theirs", "holder": "process 1 on another-machine", "until": time.time() - 1})
    assert not store.is_running()
    with store.lock():
        assert store.is_running()
    assert not store.is_running()


def test_driver_that_died_on_this_machine_is_forgotten_at_once(store):
    holder = f"process 1 on {platform.node()}"
    write_json(store.folder / lease.LEASE, {"id": "dead", "holder": holder, "until": time.time() + 60})

    with store.lock():
        pass


def test_of_drivers_that_begin_at_once_one_goes_on(store, monkeypatch):
    settle = time.sleep

    def write_over(seconds):
        write_json(store.folder / lease.LEASE, {"id": "other", "holder": "another", "until": time.time() + 60})
        settle(0)

    monkeypatch.setattr(lease.time, "sleep", write_over)
    with pytest.raises(LrsearchError, match="already being run by another"), store.lock():
        pass


def test_driver_that_lost_its_lease_is_interrupted(store, monkeypatch):
    monkeypatch.setattr(lease, "_RENEWAL", 0.1)
    with pytest.raises(KeyboardInterrupt), terminate_as_interrupt(), store.lock():
        until = read_json(store.folder / lease.LEASE, "")["until"]
        while read_json(store.folder / lease.LEASE, "")["until"] == until:
            time.sleep(0.01)  # it renews its own
        for _ in range(1000):  # again and again, for it may be renewing at this very moment
            write_json(store.folder / lease.LEASE, {"id": "other", "holder": "another", "until": time.time() + 60})
            time.sleep(0.01)
    assert read_json(store.folder / lease.LEASE, "")["id"] == "other"


class DistantSweep(Sweep):
    """A small real sweep in object storage."""

    def __init__(self, folder, uri):
        super().__init__(folder, trials=2, at_once=1)
        self.storage = uri
        self._uri = f"{uri}/s"

    @property
    def folder(self):
        """Where its files are on the machine of the moment."""
        return storage_folder(self._uri)

    @folder.setter
    def folder(self, path):
        """Not what it is for ordinary folders."""

    def results(self):
        file_system, key = object_storage.remote(self.folder)
        files = object_storage._files(file_system, f"{key}/trials")
        return {info.path.split("/")[-2]: info.mtime_ns for info in files if info.base_name == "result.json"}

    def study(self):
        known = read_json(self.folder / STUDY, "")
        return optuna.load_study(study_name=known["study"], storage=known["url"])

    def mlflow(self):
        return mlflow.MlflowClient(f"sqlite:///{storage_folder(self.storage)}/mlflow.db")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_killed_sweep_is_resumed_elsewhere_with_its_uri_alone(kind, request, machines, database, tmp_path):
    sweep = DistantSweep(tmp_path, f"{request.getfixturevalue(f'{kind}_bucket')}/runs")
    driver = sweep.start("search", str(sweep.space), "--name", "s", "--study", database)
    sweep.wait_for_new("trials/*/checkpoint.pt", driver)
    sweep.wait_for_new("trials/*/checkpoint.pt", driver)
    driver.kill()
    driver.communicate()
    sweep.take_stock()
    shutil.rmtree(tmp_path / "machines" / "here")
    sweep.space.unlink()
    machines.move_to("there")
    lost = lease.lease_holder(sweep.folder)
    assert lost and lost.endswith(platform.node())

    sweep.run_to_end("resume", "s")

    object_storage.fetch(sweep.folder)
    sweep.check_end()
    assert not files_with(S3_SECRET, PASSWORD, below=[tmp_path])
