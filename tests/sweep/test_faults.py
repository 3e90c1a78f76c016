"""What goes wrong in the driver while Tune runs is told as what it is, and never counted as a trial's failure."""

import errno

import pytest
from ray.tune import TuneError
from ray.tune.search import Searcher

from lrsearch.errors import StorageFullError
from lrsearch.sweep.cluster import plain_errors
from lrsearch.sweep.lives import Lives
from lrsearch.sweep.searcher import StudySearcher
from tests.sweep.simulator import make_space, open_session, simulate


def raise_as_tune_does(fault):
    """It keeps the text of what its callbacks raise, and wraps that once more."""
    try:
        try:
            raise fault
        except Exception:
            raise TuneError("Traceback (most recent call last): ...")  # noqa: B904 - as Tune does
    except TuneError as error:
        raise TuneError("The Ray Tune run failed.") from error


@pytest.mark.parametrize("fault", [StorageFullError("x is full"), OSError(errno.ENOSPC, "No space left on device")])
def test_fault_is_raised_as_it_was(fault):
    with pytest.raises(type(fault)) as raised, plain_errors():
        raise_as_tune_does(fault)
    assert raised.value is fault


def test_other_faults_stay_tunes():
    with pytest.raises(TuneError), plain_errors():
        raise_as_tune_does(ZeroDivisionError())


def test_fault_at_the_end_of_a_trial_stops_the_sweep_and_leaves_the_trial_unfinished(tmp_path, monkeypatch):
    session = open_session(make_space(trials=3), tmp_path)
    searcher = StudySearcher(session, lambda: 1, Lives())
    spec = searcher.suggest("a")["spec"]
    simulate(spec, session.store.trial(spec.number))
    full = StorageFullError("x is full")

    def fail(*_):
        raise full

    with monkeypatch.context() as broken:
        broken.setattr(type(session._study), "tell", fail)
        searcher.on_trial_complete("a", error=False)

    for ask in (searcher.check, lambda: searcher.suggest("b")):
        with pytest.raises(StorageFullError) as raised:
            ask()
        assert raised.value is full
    resumed = StudySearcher(open_session(make_space(trials=3), tmp_path), lambda: 1, Lives())
    resumed.check()
    numbers = [record.number for record in resumed._session.records]
    assert numbers == [spec.number]
    assert resumed.suggest("c") is not Searcher.FINISHED
