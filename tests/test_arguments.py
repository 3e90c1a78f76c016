from pathlib import Path

import pytest

from lrsearch.arguments import packed_path, parse_budget, shared_folder, without_password
from lrsearch.errors import LrsearchError


def test_a_budget_has_one_resource_or_several() -> None:
    assert parse_budget("params=0.5") == {"params": 0.5}
    assert parse_budget("params=0.5, flops=0.6") == {"params": 0.5, "flops": 0.6}
    with pytest.raises(LrsearchError, match=r"--budget is 'params=0.5,flops', expected params=F or flops=F or both"):
        parse_budget("params=0.5,flops")


def test_only_files_of_the_working_directory_travel_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert packed_path(Path("spaces/a.yaml")) == packed_path(tmp_path / "spaces" / "a.yaml") == "spaces/a.yaml"
    for outside in (Path("../a.yaml"), Path("/a.yaml")):
        with pytest.raises(LrsearchError, match="outside the working directory"):
            packed_path(outside)


def test_storage_of_a_cluster_means_the_same_everywhere():
    assert shared_folder("/shared/runs") == "/shared/runs"
    assert shared_folder("file:///shared/runs") == "file:///shared/runs"
    with pytest.raises(LrsearchError, match="expected an absolute path"):
        shared_folder("./lrsearch_runs")


@pytest.mark.parametrize(
    "uri", ["postgresql://ada:s3cret@db/x", "http://ada:s3cret@mlflow", "mysql://db/x?password=s3cret"]
)
def test_password_on_a_command_line_is_refused_and_not_repeated(uri):
    with pytest.raises(LrsearchError, match="--tracking-uri holds a password") as refused:
        without_password("--tracking-uri", uri)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("uri", [None, "http://mlflow:5000", "postgresql://ada@db/x", "sqlite:////a/b.db"])
def test_address_without_password_is_taken_as_it_is(uri):
    assert without_password("--tracking-uri", uri) == uri
