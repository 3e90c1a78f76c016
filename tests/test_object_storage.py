"""Folders that stand for object storage: what one machine writes is what another reads."""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrsearch import object_storage
from lrsearch.errors import LrsearchError, StorageError
from lrsearch.files import read_json, replacing, write_json
from lrsearch.object_storage import check, discard, fetch, folders, local_folder, uri_of
from lrsearch.sweep.store import storage_folder


@pytest.fixture(params=["s3", "gs"])
def bucket(request):
    return request.getfixturevalue(f"{request.param}_bucket")


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/a/b", "gs://bucket/a"])
def test_folder_stands_for_a_uri(uri, machines):
    folder = storage_folder(f"{uri}/")

    assert folder.is_absolute()
    assert uri_of(folder) == uri
    assert uri_of(folder / "trials" / "1") == f"{uri}/trials/1"


@pytest.mark.parametrize("uri", ["s3://", "s3:///a", "s3://key:secret@bucket/a", "s3://b/../a", "s3://b/a?region=x"])
def test_other_uris_are_refused(uri):
    with pytest.raises(LrsearchError, match="expected s3://BUCKET/FOLDER") as refused:
        storage_folder(uri)
    assert "secret" not in str(refused.value)


def test_other_kinds_of_storage_are_refused():
    with pytest.raises(LrsearchError, match=r"storage is 'ftp://host/a', expected a folder .* or gs://BUCKET/FOLDER"):
        storage_folder("ftp://host/a")


def test_ordinary_folder_is_left_alone(tmp_path):
    (tmp_path / "a.json").touch()

    fetch(tmp_path)
    check(tmp_path)

    assert uri_of(tmp_path) is None and object_storage.remote(tmp_path) is None
    assert (tmp_path / "a.json").exists()


def test_kind_of_uri_chooses_the_file_system(machines, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    kinds = [object_storage.remote(local_folder(f"{kind}://bucket/runs")) for kind in ("s3", "gs")]

    assert [(file_system.type_name, key) for file_system, key in kinds] == [
        ("s3", "bucket/runs"),
        ("gcs", "bucket/runs"),
    ]


OPERATIONS = st.tuples(
    st.sampled_from(["here", "there"]),
    st.sampled_from(["write", "discard", "discard folder"]),
    st.sampled_from(["a.json", "trials/1/result.json", "trials/2/result.json"]),
    st.integers(0, 9),
)


@given(st.lists(OPERATIONS, max_size=8))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_last_is_what_every_machine_reads(bucket, machines, operations):
    """Within one second, in files of one size, so that neither time nor size tells the versions apart."""
    expected = {}
    uri = f"{bucket}/{time.monotonic_ns()}"
    for machine, operation, name, content in operations:
        machines.move_to(machine)
        path = storage_folder(uri) / name
        fetch(path)
        if operation == "write":
            write_json(path, content)
            expected[name] = content
        else:
            gone = Path(name) if operation == "discard" else Path(name).parent
            discard(storage_folder(uri) / gone)
            expected = {file: kept for file, kept in expected.items() if gone not in (Path(file), *Path(file).parents)}
    for machine in ("here", "there"):
        machines.move_to(machine)
        folder = storage_folder(uri)
        fetch(folder)
        found = {str(file.relative_to(folder)): read_json(file, "") for file in folder.rglob("*.json")}
        assert found == expected


def test_weights_are_fetched_when_they_are_asked_for(bucket, machines):
    folder = storage_folder(f"{bucket}/runs")
    for name in ("recipe.json", "weights.safetensors", "checkpoint.pt"):
        with replacing(folder / name) as temporary:
            temporary.write_text(name)
    machines.move_to("there")
    folder = storage_folder(f"{bucket}/runs")

    fetch(folder, weights=False)
    assert [file.name for file in folder.iterdir()] == ["recipe.json"]
    fetch(folder)
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        name: name for name in ("recipe.json", "weights.safetensors", "checkpoint.pt")
    }
    fetch(folder, weights=False)
    assert len(list(folder.iterdir())) == 3


def test_locks_and_unfinished_files_stay_and_leftovers_go(bucket):
    folder = storage_folder(f"{bucket}/runs")
    write_json(folder / "a.json", 1)
    for name in ("lock", "statistics.lock", ".a.json.4711", "leftover.json"):
        (folder / name).touch()

    fetch(folder)

    assert {file.name for file in folder.iterdir()} == {"a.json", "lock", "statistics.lock", ".a.json.4711"}


def test_hidden_folder_is_discarded_with_all_in_it(bucket):
    folder = storage_folder(f"{bucket}/runs")
    write_json(folder / "a.json", 1)
    write_json(folder / ".ray" / "trial" / "b.json", 1)
    file_system, key = object_storage.remote(folder)

    discard(folder / ".ray")
    discard(folder / ".ray")

    assert not (folder / ".ray").exists()
    assert [info.path for info in object_storage._objects(file_system, key)] == [f"{key}/a.json"]


def test_unchanged_file_is_not_fetched_again(bucket, machines, monkeypatch):
    monkeypatch.setattr(object_storage, "_SETTLED", -10.0)
    write_json(storage_folder(f"{bucket}/runs") / "a.json", 1)
    machines.move_to("there")
    file = storage_folder(f"{bucket}/runs") / "a.json"
    fetch(file)
    fetched = file.stat().st_ino

    fetch(file)

    assert file.stat().st_ino == fetched


def test_writer_that_fails_leaves_the_old_object(bucket, machines):
    path = storage_folder(f"{bucket}/runs") / "a.json"
    write_json(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    machines.move_to("there")
    path = storage_folder(f"{bucket}/runs") / "a.json"

    fetch(path)

    assert read_json(path, "") == "old"


def test_folders_are_those_of_the_bucket(bucket, machines):
    for name in ("one", "two"):
        write_json(storage_folder(bucket) / name / "trials" / "a.json", 1)
    machines.move_to("there")

    assert sorted(folder.name for folder in folders(storage_folder(bucket))) == ["one", "two"]


def test_bucket_that_is_not_there_is_named(bucket):
    uri = f"{bucket.partition('://')[0]}://nowhere/runs"
    with pytest.raises(StorageError, match=f"storage {uri} has no such bucket"):
        check(storage_folder(uri))


def test_storage_that_does_not_answer_is_named(machines, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(object_storage, "_file_system", lambda kind, attempts=1: UNCACHED(kind, 1))
    path = storage_folder("s3://bucket/runs") / "a.json"

    for use in (lambda: check(path.parent), lambda: fetch(path), lambda: write_json(path, 1)):
        with pytest.raises(StorageError, match=r"storage s3://bucket/runs.* cannot be used"):
            use()
    assert not path.exists()


UNCACHED = object_storage._file_system.__wrapped__


@pytest.fixture(autouse=True)
def no_file_system_is_kept():
    """Tests differ in their environment."""
    object_storage._file_system.cache_clear()
