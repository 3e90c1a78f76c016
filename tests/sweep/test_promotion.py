"""More epochs under the same name: the front goes on from its last epoch, and nobody else trains again."""

from dataclasses import replace
from pathlib import Path

import pytest

from lrsearch.outcome import read_result
from lrsearch.results import load_front, status
from lrsearch.sweep.study import SweepStudy, read_records
from lrsearch.trial import CHECKPOINT
from tests.sweep.simulator import accuracy, grid_space, kept, open_session, run, work


def test_front_and_nothing_else_is_promoted(tmp_path):
    run(short := open_session(grid_space(epochs=3), tmp_path))
    front = {record.number for record in short.records if record.pareto}

    session = open_session(grid_space(epochs=9), tmp_path)
    specs = []
    while spec := session.next_trial():
        specs.append(spec)
        for _ in work(session, spec):
            pass

    assert session.finished and {int(spec.continues.rsplit("/")[-1]) for spec in specs} == front
    records = {record.number: record for record in read_records(session.store)}
    for spec in specs:
        promoted, earlier = records[spec.number], records[records[spec.number].continues]
        assert promoted.hyperparameters == earlier.hyperparameters
        assert (earlier.epochs, promoted.epochs) == (3, 9)
        assert spec.seed == short._spec(short._study.asked(earlier.number)).seed
        assert promoted.state == "complete" and promoted.accuracy > earlier.accuracy
    results = load_front("sim", str(tmp_path))
    assert results.planned == len(records) == 30 + len(front)
    assert status("sim", str(tmp_path))["finished"] == len([r for r in records.values() if r.state == "complete"])


def test_only_members_of_the_front_keep_a_checkpoint(tmp_path):
    run(session := open_session(grid_space(epochs=3), tmp_path))

    kept = {int(path.parent.name) for path in session.store.folder.glob(f"trials/*/{CHECKPOINT}")}

    assert kept == {record.number for record in session.records if record.pareto}


def test_a_member_that_leaves_the_front_before_its_promotion_begins_keeps_its_checkpoint(tmp_path):
    run(open_session(grid_space(epochs=3), tmp_path))
    session, begun = open_session(grid_space(epochs=9), tmp_path), {}

    def excellent(spec, epoch):
        """The smallest network, once taken further, dominates every other."""
        return 99.0 if kept(spec) < 0.11 else accuracy(spec, epoch)

    specs = sorted(iter(session.next_trial, None), key=kept)
    for spec in specs:
        begun[spec.number] = (Path(spec.continues) / CHECKPOINT).exists()
        for _ in work(session, spec, accuracy=excellent):
            pass

    assert len(specs) > 2 and all(begun.values())
    left = {int(path.parent.name) for path in session.store.folder.glob(f"trials/*/{CHECKPOINT}")}
    assert left == {record.number for record in session.records if record.pareto}


def test_promotion_happens_once_and_again_for_more(tmp_path):
    for epochs in (2, 4, 4, 8):
        run(session := open_session(grid_space(epochs=epochs), tmp_path))
    records = read_records(session.store)

    by_epochs = {e: [r for r in records if r.epochs == e] for e in (2, 4, 8)}
    assert len(by_epochs[2]) == 30
    assert all(len({r.continues for r in by_epochs[e]}) == len(by_epochs[e]) > 0 for e in (4, 8))
    numbers = {r.number: r for r in records}
    assert {numbers[r.continues].epochs for r in by_epochs[8]} <= {2, 4}


@pytest.mark.parametrize("added", [0, 1, 2])
def test_driver_killed_while_it_promotes_changes_nobody(tmp_path, monkeypatch, added):
    run(session := open_session(grid_space(epochs=3), tmp_path))
    front = {record.number for record in session.records if record.pareto}
    import optuna

    add, left = optuna.Study.add_trial, [added]

    def dying(study, trial):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        add(study, trial)

    with monkeypatch.context() as doomed:
        doomed.setattr(optuna.Study, "add_trial", dying)
        with pytest.raises(KeyboardInterrupt):
            SweepStudy(session.store, grid_space(epochs=9))
    run(session := open_session(grid_space(epochs=9), tmp_path))

    continued = [record.continues for record in session.records if record.continues is not None]
    assert sorted(continued) == sorted(front)


def test_trial_begun_before_ends_with_its_own_epochs(tmp_path):
    session = open_session(grid_space(epochs=3), tmp_path)
    run(session, trials=2)
    begun = session.next_trial()
    next(work(session, begun))

    again = open_session(grid_space(epochs=9), tmp_path)
    specs = {spec.number: spec for spec in iter(again.next_trial, None)}

    assert specs[begun.number].retrain["epochs"] == 3
    assert specs[begun.number] == replace(begun, constraints=specs[begun.number].constraints)
    assert {spec.retrain["epochs"] for number, spec in specs.items() if number > begun.number} == {9}
    assert read_result(again.store.trial(0))["state"] == "complete"
