"""What `doctor` says of machines that are well and of others, and the schema as it is printed."""

import json

import pytest

from lrsearch import doctor
from lrsearch.errors import LrsearchError
from tests.test_cli import lrsearch


@pytest.fixture
def quick(monkeypatch):
    """Ray neither started nor asked."""
    monkeypatch.setattr(doctor, "_ray", lambda address: doctor.Finding("Ray", "ok", "starts on this machine"))


def findings(*options, cwd):
    done = lrsearch("doctor", "--format", "json", *options, cwd=cwd)
    told = json.loads(done.stdout)
    assert done.returncode == (0 if told["ok"] else 1)
    return {finding["what"]: finding for finding in told["findings"]}


def test_a_machine_on_which_sweeps_run(tmp_path):
    found = findings(cwd=tmp_path)

    assert {finding["verdict"] for finding in found.values()} <= {"ok", "note"}
    assert "torch" in found["packages"]["text"]
    assert "CPUs" in found["Ray"]["text"]
    assert not list(tmp_path.iterdir()), "looking leaves nothing behind"


def test_a_cluster_that_is_not_there(tmp_path):
    ray = findings("--address", "127.0.0.1:1", cwd=tmp_path)["Ray"]

    assert ray["verdict"] == "fix" and "127.0.0.1:1" in ray["text"] and "cluster" in ray["advice"]


def test_what_must_be_fixed_is_named_with_advice_and_status_1(tmp_path, quick):
    (tmp_path / "file").write_text("")
    done = lrsearch("doctor", "--storage", "file/runs", "--tracking-uri", "http://127.0.0.1:1", cwd=tmp_path)

    assert done.returncode == 1
    assert "to be fixed: storage, MLflow" in done.stdout
    assert "-> give another folder as --storage" in done.stdout and "\x1b" not in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_a_damaged_store_of_runs(tmp_path, quick):
    (tmp_path / "lrsearch_runs").mkdir()
    (tmp_path / "lrsearch_runs" / "mlflow.db").write_bytes(b"no database at all" * 99)

    found = findings(cwd=tmp_path)

    assert found["MLflow"]["verdict"] == "fix" and "damaged" in found["MLflow"]["text"]
    assert found["storage"]["verdict"] == "ok"


def test_a_missing_package(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("optuna", "onnx") else "1.0")

    by_package = [f for f in doctor.examine(str(tmp_path)) if f.what in ("packages", "ONNX")]

    assert (by_package[0].verdict, by_package[0].advice) == ("fix", "pip install optuna")
    assert by_package[-1].verdict == "note" and "lrsearch[onnx]" in by_package[-1].advice


def test_a_gpu_that_pytorch_cannot_use(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")

    assert doctor._gpu().verdict == "fix" and "PyTorch" in doctor._gpu().advice


def test_little_room_and_a_busy_machine_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_ROOM", 2**60)
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0))

    assert doctor._storage(str(tmp_path)).verdict == "note"
    assert doctor._processor().verdict == "note"


def test_passwords_in_what_went_wrong_are_hidden():
    def look():
        raise LrsearchError("no answer from postgresql://me:secret@host/db")

    assert "secret" not in doctor._guarded("MLflow", "", look).text


def test_schema_is_json(tmp_path):
    printed = json.loads(lrsearch("schema", cwd=tmp_path).stdout)

    assert {"model", "data", "methods"} <= printed["properties"].keys()
