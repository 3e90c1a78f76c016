"""A study in a database instead of a journal: the same sweep, and never mixed up with another's."""

import itertools
import json

import optuna
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from lrsearch.errors import LrsearchError
from lrsearch.results import status
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import read_records
from lrsearch.sweep.study_store import STUDY, choose_database, forget_study
from tests.sweep.postgresql import PASSWORD
from tests.sweep.simulator import grid_space, make_space, open_session, run


def choose(folder, url, name="sim"):
    store = SweepStore(folder, name)
    store.create()
    choose_database(store, url)
    return store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path, monkeypatch):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/studies.db"
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return request.getfixturevalue("postgresql").create(tmp_path.name)


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
    names = optuna.study.get_all_study_names(url)
    assert len(set(names)) == 2 and all(name.startswith("sim-") for name in names)


@pytest.mark.parametrize("took_effect", [False, True], ids=["before it wrote", "after it wrote"])
def test_answers_that_get_lost_lose_and_double_nothing(tmp_path, monkeypatch, took_effect):
    """Every third time the database is written to, it is away, and then again when it is asked once more."""
    run(journal := open_session(grid_space(epochs=3), tmp_path / "journal"), trials=12)
    choose(tmp_path / "database", f"sqlite:///{tmp_path}/studies.db")
    monkeypatch.setattr("lrsearch.sweep.patience._PAUSE", 0)
    session = open_session(grid_space(epochs=3), tmp_path / "database")
    commit, writes = Session.commit, itertools.count()

    def commit_without_answer(self):
        lost = bool(self.dirty or self.new) and next(writes) % 3 == 0
        if took_effect or not lost:
            commit(self)
        if lost:
            raise OperationalError("COMMIT", {}, ConnectionError("server closed the connection unexpectedly"))

    monkeypatch.setattr(Session, "commit", commit_without_answer)
    run(session, trials=12)

    assert next(writes) > 30
    assert fates(session) == fates(journal)


def test_database_that_stays_away_puts_the_sweep_aside(tmp_path, monkeypatch, postgresql):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr("lrsearch.sweep.patience._PAUSE", 0.01)
    monkeypatch.setattr("lrsearch.sweep.patience._PATIENCE", 0.1)
    choose(tmp_path, postgresql.create(tmp_path.name))
    run(session := open_session(make_space(trials=4), tmp_path), trials=2)

    postgresql.stop()
    try:
        with pytest.raises(LrsearchError, match=r"the study's database stays away .* resume when it is back"):
            run(session)
    finally:
        postgresql.start()

    run(session := open_session(make_space(trials=4), tmp_path))
    assert [record.number for record in read_records(session.store)] == [0, 1, 2, 3]


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


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_reached_by_the_driver_that_is_installed(tmp_path, scheme):
    store = choose(tmp_path, f"{scheme}://me@host/optuna")

    assert json.loads((store.folder / STUDY).read_text())["url"] == "postgresql+psycopg://me@host/optuna"


def test_forgotten_study_is_another(tmp_path):
    store = choose(tmp_path, f"sqlite:///{tmp_path}/a.db")
    store.save_space(make_space())
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
