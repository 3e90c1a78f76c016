"""Other seeds for the front: what is averaged, and that a repetition is a trial of its own."""

import math
from dataclasses import replace

import pytest

from lrsearch.outcome import read_result
from lrsearch.record import TrialRecord
from lrsearch.screen import front_rows, front_table
from lrsearch.sweep.confirm import SEED_STRIDE, _other, repetition, summarize
from tests.sweep.simulator import grid_space, open_session, run


def test_mean_and_sample_deviation():
    summary = summarize([{"accuracy": 90.0, "test_accuracy": a} for a in (88.0, 89.0, 93.0)])

    assert summary["confirmed_seeds"] == 3
    assert (summary["accuracy_mean"], summary["accuracy_std"]) == (90.0, 0.0)
    assert summary["test_accuracy_mean"] == 90.0
    assert summary["test_accuracy_std"] == pytest.approx(math.sqrt(7))
    assert summarize([{"accuracy": 90.0, "test_accuracy": 88.0}])["test_accuracy_std"] == 0.0
    assert summarize([]) == {"confirmed_seeds": 0}


def test_repetitions_have_seeds_and_folders_of_their_own_and_start_from_the_dense_network(tmp_path):
    run(open_session(grid_space(epochs=2), tmp_path))
    run(session := open_session(grid_space(epochs=4), tmp_path))
    specs = session.front_specs()
    assert any(spec.continues for spec in specs)

    others = [_other(spec, seed, session.store) for spec in specs for seed in (1, 2)]

    assert all(other.continues is None and other.constraints == {} for other, _ in others)
    assert len({folder for _, folder in others}) == len({(o.number, o.seed) for o, _ in others}) == 2 * len(specs)
    assert not {other.seed for other, _ in others} & {spec.seed for spec in specs}
    assert len(session.records) < SEED_STRIDE


def test_failed_repetition_is_left_out_and_not_run_again(tmp_path, monkeypatch):
    session = open_session(grid_space(epochs=2), tmp_path)
    spec, folder = replace(session.next_trial(), method="alds"), tmp_path / "again"

    assert repetition(spec, folder) is None  # there is no dense network in this simulation
    assert read_result(folder)["state"] == "failed"
    monkeypatch.setattr("lrsearch.sweep.confirm.run_trial", lambda *_: pytest.fail("run again"))
    assert repetition(spec, folder) is None


def test_table_shows_mean_and_deviation():
    record = TrialRecord(0, "complete", "alds", accuracy=90.0, test_accuracy=91.0)
    record.extra = summarize([{"accuracy": 90.0, "test_accuracy": a} for a in (88.0, 90.0)])

    cells = [next(iter(column.cells)) for column in front_table(front_rows(None, [record])).columns]

    assert "89.00±1.41" in cells
