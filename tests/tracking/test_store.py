from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest
from sqlalchemy import Engine, event

from lrsearch.errors import LrsearchError
from lrsearch.tracking import Tracker, front_address, tracking_uri, ui_command
from lrsearch.tracking.store import connect


def run_python(code, **environment):
    path = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": "/usr/bin:/bin"}
    result = subprocess.run([sys.executable, "-c", code], env={**path, **environment}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result


def test_importing_the_room_does_not_import_mlflow():
    run_python(
        "import sys, lrsearch.tracking\n"
        "assert not {'mlflow', 'plotly', 'matplotlib', 'torch', 'ray'} & set(sys.modules)"
    )


@pytest.mark.parametrize(("given", "expected"), [({}, "true"), ({"MLFLOW_DISABLE_TELEMETRY": "false"}, "false")])
def test_telemetry_is_off_unless_the_user_asks_for_it(given, expected):
    show = "import os, lrsearch.tracking; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    assert run_python(show, **given).stdout.strip() == expected


def test_making_a_store_says_nothing(tmp_path):
    code = "import sys, pathlib; from lrsearch.tracking import Tracker; Tracker(None, pathlib.Path(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "new" / "runs")], capture_output=True, text=True, check=True
    )
    assert (tmp_path / "new" / "runs" / "mlflow.db").exists()
    assert "mlflow" not in result.stderr.lower() and "alembic" not in result.stderr.lower()


def test_what_a_new_store_is_told_outlasts_the_machine(tmp_path):
    """Only the making of its tables does not wait for the disk."""
    used = []

    def note(connection, *_):
        used.append(connection.execute("PRAGMA synchronous").fetchone())

    client = connect(None, tmp_path)
    event.listen(Engine, "checkout", note)
    client.create_experiment("e")
    event.remove(Engine, "checkout", note)

    assert set(used) == {(2,)}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"this is not a database " * 400, id="not sqlite"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut short"),
        pytest.param(lambda content: content[:8192] + b"\xff" * 8192 + content[16384:], id="overwritten"),
    ],
)
def test_a_damaged_store_is_named(storage, damage):
    database = storage / "mlflow.db"
    database.write_bytes(damage(database.read_bytes()))
    with pytest.raises(LrsearchError, match=r"mlflow\.db is damaged") as caught:
        Tracker(None, storage)
    assert str(database) in str(caught.value) and "\n" not in str(caught.value)


def test_a_store_of_another_schema_is_named(storage):
    import sqlite3

    with sqlite3.connect(storage / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(LrsearchError, match=r"mlflow\.db cannot be opened"):
        Tracker(None, storage)


def test_a_storage_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LrsearchError, match=r"storage folder .*file.* cannot be written"):
        Tracker(None, tmp_path / "file" / "runs")


def test_a_server_that_is_not_there_is_named_soon(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(LrsearchError, match=uri):
        Tracker(uri, tmp_path)
    assert time.monotonic() - began < 15


def test_a_server_that_does_not_answer_is_named_soon(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(LrsearchError, match=uri):
            Tracker(uri, tmp_path)
    assert time.monotonic() - began < 30


def test_the_store_of_a_storage_folder_is_the_default(tmp_path):
    assert tracking_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri("http://there:5000", tmp_path) == "http://there:5000"


def test_ui_is_bound_to_this_machine_and_the_right_store(storage):
    command = ui_command(None, storage, 5123)
    assert command[:4] == [sys.executable, "-m", "mlflow", "ui"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "5123")
    assert options["--backend-store-uri"] == f"sqlite:///{storage}/mlflow.db"


def test_ui_of_nothing_and_of_a_server_is_refused(tmp_path):
    with pytest.raises(LrsearchError, match="run a sweep there first"):
        ui_command(None, tmp_path)
    with pytest.raises(LrsearchError, match=r"http://there:5000 .* browser"):
        ui_command("http://there:5000", tmp_path)


def test_the_front_of_a_sweep_that_is_not_there_has_no_address(storage):
    with pytest.raises(LrsearchError, match="no sweep named 'digits'"):
        front_address(None, storage, "digits")
