"""A study in a database instead of a journal: the same sweep, and never mixed up with another's."""

import json
import os

import optuna
import pytest

from lrsearch.errors import LrsearchError
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import read_records
from lrsearch.sweep.study_store import STUDY, choose_database, forget_study
from lrsearch.sweeps import status
from tests.sweep.simulator import grid_space, make_space, open_session, run


def choose(folder, url, name="sim"):
    store = SweepStore(folder, name)
    store.create()
    choose_database(store, url)
    return store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/studies.db"
    if "LRSEARCH_TEST_POSTGRESQL" not in os.environ:
        pytest.skip("LRSEARCH_TEST_POSTGRESQL names no database")
    return os.environ["LRSEARCH_TEST_POSTGRESQL"]


def fates(session):
    return [(r.hyperparameters, r.state, r.accuracy, r.reason) for r in read_records(session.store)]


def test_sweep_in_a_database_is_the_sweep_in_a_journal(tmp_path, url):
    run(journal := open_session(grid_space(epochs=3), tmp_path / "journal"))
    choose(tmp_path / "database", url)
    run(open_session(grid_space(epochs=3), tmp_path / "database"), trials=8)

    run(database := open_session(grid_space(epochs=3), tmp_path / "database"))

    assert fates(database) == fates(journal)
    assert not database.store.journal.exists()
    assert status("sim", str(tmp_path / "database")) == status("sim", str(tmp_path / "journal"))


def test_sweeps_of_one_name_share_a_database(tmp_path, url):
    for place in ("here", "there"):
        choose(tmp_path / place, url)
        run(session := open_session(make_space(trials=3), tmp_path / place))
        assert [record.number for record in read_records(session.store)] == [0, 1, 2]
    names = {optuna.study.get_all_study_names(url)[0] for url in [url]}
    assert all(name.startswith("sim-") for name in names)


def test_study_stays_where_it_is(tmp_path):
    store = choose(tmp_path, f"sqlite:///{tmp_path}/a.db")
    choose_database(store, f"sqlite:///{tmp_path}/a.db")

    with pytest.raises(LrsearchError, match=r"b\.db.*a\.db"):
        choose_database(store, f"sqlite:///{tmp_path}/b.db")
    run(journal := open_session(make_space(trials=1), tmp_path, name="kept"))
    with pytest.raises(LrsearchError, match=r"study\.journal"):
        choose_database(journal.store, f"sqlite:///{tmp_path}/a.db")


def test_relative_database_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    store = choose(tmp_path, "sqlite:///studies.db")

    assert json.loads((store.folder / STUDY).read_text())["url"] == f"sqlite:///{tmp_path}/studies.db"


def test_forgotten_study_is_another(tmp_path):
    store = choose(tmp_path, f"sqlite:///{tmp_path}/a.db")
    before = (store.folder / STUDY).read_text()

    forget_study(store)

    assert (store.folder / STUDY).read_text() != before and read_records(store) == []


@pytest.mark.parametrize("url", ["postgresql://me:secret@host/optuna", "studies.db"])
def test_password_and_nonsense_are_refused(tmp_path, url):
    with pytest.raises(LrsearchError, match="--study") as caught:
        choose(tmp_path, url)

    assert "secret" not in str(caught.value)


def test_database_that_cannot_be_used_is_named(tmp_path):
    choose(tmp_path, "sqlite:////nowhere/at/all.db")

    with pytest.raises(LrsearchError, match=r"study database sqlite:////nowhere/at/all\.db cannot be used"):
        open_session(make_space(), tmp_path)
