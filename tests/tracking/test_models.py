"""Networks in MLflow: what is loaded says what the trial's network says, and nothing is unpickled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import made_up_sweep as made_up
import numpy as np
import pytest
import torch

from lrsearch.compression import compress
from lrsearch.errors import LrsearchError
from lrsearch.models import build_model
from lrsearch.outcome import write_result
from lrsearch.persistence import rebuild
from lrsearch.tracking import Tracker, find_runs
from lrsearch.tracking.models import log_models, save_model

ENTRY = {"name": "digits_resnet", "width": 8}
LOADED = """
import sys
for name in ("lrsearch", "torchvision", "tensorly", "ray", "optuna"):
    sys.modules[name] = None
import mlflow, numpy
network = mlflow.pyfunc.load_model(sys.argv[1])
numpy.save(sys.argv[3], network.predict(numpy.load(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """The folder of a trial."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("trial")
    compress(build_model(ENTRY), "tucker", {"params": 0.5}, architecture=ENTRY).save(folder)
    write_result(folder, {"state": "complete", "metrics": {}, "epochs": [], "input_shape": [1, 8, 8]})
    return folder


@pytest.fixture
def runs(storage):
    """A store with the runs of three trials."""
    tracker, info = Tracker(None, storage), made_up.sweep_info(storage, 3)
    made_up.begin(tracker, info)
    made_up.play(tracker, info, range(3))
    tracker.sweep_stopped("finished")
    return find_runs(None, storage, "digits")


def client_of(storage):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{storage}/mlflow.db")


@pytest.mark.slow
def test_a_written_model_loads_without_lrsearch_and_without_pickles(tmp_path, network):
    save_model(network, tmp_path / "model")
    images = np.random.default_rng(0).normal(size=(7, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    files = [str(tmp_path / name) for name in ("model", "images.npy", "outputs.npy")]
    strict = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"} if torch.__version__ >= "2.10" else {}
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *files], env={**os.environ, **strict}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = rebuild(network)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected, rtol=1e-4, atol=1e-4)
    with zipfile.ZipFile(tmp_path / "model" / "data" / "model.pt2") as archive:
        assert not any(name.endswith((".pkl", ".py")) for name in archive.namelist())


def test_a_model_has_a_signature_for_any_batch_and_an_example(tmp_path, network):
    from mlflow.models import Model

    save_model(network, tmp_path / "model")
    model = Model.load(str(tmp_path / "model"))
    assert [spec.shape for spec in (*model.signature.inputs, *model.signature.outputs)] == [(-1, 1, 8, 8), (-1, 10)]
    assert model.load_input_example(str(tmp_path / "model")).shape == (2, 1, 8, 8)


def test_a_network_is_logged_once_and_its_run_stays_as_it_was(storage, runs, network):
    client = client_of(storage)
    before = client.get_run(runs.trials[0])
    networks = {runs.trials[number]: network for number in (0, 1)}
    first = log_models(None, storage, networks)
    assert log_models(None, storage, networks) == first
    assert first.keys() == networks.keys() and len(set(first.values())) == 2
    after = client.get_run(runs.trials[0])
    assert [f"models:/{known.model_id}" for known in after.outputs.model_outputs] == [first[runs.trials[0]]]
    assert (after.info.status, after.info.end_time) == (before.info.status, before.info.end_time)
    model = client.get_logged_model(after.outputs.model_outputs[0].model_id)
    assert model.experiment_id == after.info.experiment_id
    assert str(storage / "mlartifacts") in model.artifact_location.replace("%20", " "), "not where a user happens to be"


def test_a_model_whose_writing_was_cut_short_is_written_again(storage, runs, network, monkeypatch):
    def die(**_):
        raise KeyboardInterrupt

    run_id = runs.trials[0]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("mlflow.pytorch.save_model", die)
        log_models(None, storage, {run_id: network})
    logged = log_models(None, storage, {run_id: network})
    assert log_models(None, storage, {run_id: network}) == logged
    assert client_of(storage).get_logged_model(logged[run_id].removeprefix("models:/")).status == "READY"


def test_a_finished_sweep_logs_the_networks_of_its_front(storage, network, caplog):
    tracker, info = Tracker(None, storage), made_up.sweep_info(storage, 3)
    made_up.begin(tracker, info)
    front = [record.number for record in made_up.play(tracker, info, range(3)) if record.pareto]
    assert len(front) > 1
    shutil.copytree(network, info.folder / "trials" / str(front[0]), dirs_exist_ok=True)
    tracker.sweep_stopped("finished")

    runs, client = find_runs(None, storage, "digits").trials, client_of(storage)
    logged = {number: client.get_run(runs[number]).outputs for number in runs}
    assert [number for number in runs if logged[number] and logged[number].model_outputs] == front[:1]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == len(front) - 1 and all("recipe" in text for text in warnings)


def test_the_knee_is_registered_on_request_under_its_alias(storage, runs, network):
    networks = {runs.trials[number]: network for number in (0, 1)}
    client = client_of(storage)
    log_models(None, storage, networks)
    assert client.search_registered_models() == []
    for knee in (0, 1, 1):
        logged = log_models(None, storage, networks, register="small", knee=runs.trials[knee])
        version = client.get_model_version_by_alias("small", "knee")
        assert version.source == logged[runs.trials[knee]] and version.run_id == runs.trials[knee]
    assert len(client.search_model_versions("name = 'small'")) == 2, "none is registered twice"


def test_what_cannot_be_written_is_said_in_one_sentence(tmp_path, network):
    (tmp_path / "there").mkdir()
    with pytest.raises(LrsearchError, match="exists"):
        save_model(network, tmp_path / "there")
    torch.manual_seed(0)
    compress(build_model(ENTRY), "svd", {"params": 0.5}, architecture=ENTRY).save(tmp_path / "no_result")
    with pytest.raises(LrsearchError, match="shape"):
        save_model(tmp_path / "no_result", tmp_path / "model")
