"""The driver's bookkeeping, without Ray: whatever is lost when it dies, every trial counts exactly once."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrsearch.errors import LrsearchError
from lrsearch.files import write_json
from lrsearch.front import mark_front
from lrsearch.outcome import failed_result, write_result
from lrsearch.record import CONFIRMED, IMPORTANCE
from lrsearch.results import load_front, status
from lrsearch.sweep.store import SweepStore
from lrsearch.sweep.study import read_importances, read_records
from tests.sweep.simulator import DENSE, make_space, open_session, run, simulate


class Watcher:
    def __init__(self):
        self.finished, self.fronts = [], []

    def __getattr__(self, name):
        return lambda *args: None

    def trial_finished(self, record, epochs, folder):
        self.finished.append(record.number)

    def front_changed(self, front, hypervolume):
        self.fronts.append(hypervolume)


def test_every_method_starts_at_several_places_before_sampling(tmp_path):
    session = open_session(make_space(), tmp_path)

    specs = [session.next_trial() for _ in range(6)]

    assert [spec.method for spec in specs] == ["alds", "tucker"] * 3
    budgets = [spec.hyperparameters["budget"]["params"] for spec in specs if spec.method == "alds"]
    assert budgets == pytest.approx([0.45, 0.24, 0.66])
    alphas = [spec.hyperparameters["alpha"] for spec in specs if spec.method == "tucker"]
    assert alphas == pytest.approx([1.5 * (10 / 1.5) ** q for q in (0.5, 0.2, 0.8)])


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "random"])
def test_sweep_ends_with_every_trial_told_once(tmp_path, sampler):
    watcher = Watcher()
    session = open_session(make_space(trials=9, sampler=sampler), tmp_path, [watcher])

    run(session)

    assert [record.number for record in session.records] == list(range(9)) == watcher.finished
    assert all(record.state == "complete" for record in session.records)
    assert watcher.fronts == sorted(set(watcher.fronts)), "told of a front that has not changed"
    assert status("sim", str(tmp_path)) | {"hypervolume": 0} == {
        "name": "sim",
        "trials": 9,
        "finished": 9,
        "failed": 0,
        "pruned": 0,
        "running": 0,
        "interrupted": 0,
        "front_size": sum(record.pareto for record in session.records),
        "hypervolume": 0,
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_dead_drivers_lose_and_repeat_nothing(tmp_path_factory, data):
    """Drivers die between any two steps: after asking, after the worker's result, after telling."""
    folder, space = tmp_path_factory.mktemp("sweep"), make_space(trials=6, sampler="random")
    ran = []
    for _ in range(data.draw(st.integers(0, 4), label="deaths")):
        session = open_session(space, folder)
        for _ in range(data.draw(st.integers(0, 3), label="trials before death")):
            spec = session.next_trial()
            if spec is None:
                break
            fate = data.draw(st.sampled_from(["told", "result left", "nothing left"]), label="fate")
            if fate != "nothing left":
                ran.append(spec.number)
                simulate(spec, session.store.trial(spec.number))
            if fate == "told":
                session.trial_ended(spec.number, worker_died=False)
    session = open_session(space, folder)
    asked_before = {r.number: r.hyperparameters for r in read_records(session.store)}
    while spec := session.next_trial():
        assert spec.number not in ran, "a finished trial was run again"
        ran.append(spec.number)
        simulate(spec, session.store.trial(spec.number))
        session.trial_ended(spec.number, worker_died=False)

    session.publish_front()
    records = read_records(session.store)
    assert sorted(ran) == list(range(6)) == [record.number for record in records]
    assert {record.state for record in records} == {"complete"}
    for number, hyperparameters in asked_before.items():
        assert records[number].hyperparameters == hyperparameters
    mark_front(records, space.objectives, space.constraints)
    front = json.loads((session.store.front / "front.json").read_text())
    assert sorted(t["number"] for t in front["trials"]) == [r.number for r in records if r.pareto]


def test_resumed_random_search_does_not_repeat_its_draws(tmp_path):
    space = make_space(trials=12, sampler="random")
    run(open_session(space, tmp_path), trials=8)

    run(session := open_session(space, tmp_path))

    drawn = {json.dumps([r.method, r.hyperparameters]) for r in session.records}
    assert len(drawn) == 12


def test_interrupted_trial_stays_unfinished_but_a_lost_worker_is_a_failure(tmp_path):
    session = open_session(make_space(), tmp_path)
    interrupted, lost = session.next_trial(), session.next_trial()

    session.trial_ended(interrupted.number, worker_died=False)
    session.trial_ended(lost.number, worker_died=True)

    states = {record.number: record.state for record in read_records(session.store)}
    assert states == {interrupted.number: "running", lost.number: "failed"}
    assert "worker" in session.records[0].reason


def test_failed_trial_is_a_result_and_never_on_the_front(tmp_path):
    session = open_session(make_space(trials=2), tmp_path)
    spec = session.next_trial()
    session.store.trial(spec.number).mkdir(parents=True)
    write_result(session.store.trial(spec.number), failed_result("epoch 2: the loss is nan"))
    session.trial_ended(spec.number, worker_died=False)
    run(session)

    results = load_front("sim", str(tmp_path))
    assert [(t.state, t.reason, t.pareto) for t in results.trials] == [
        ("failed", "epoch 2: the loss is nan", False),
        ("complete", None, True),
    ]


def test_front_over_other_objectives_and_within_a_drop(tmp_path):
    run(open_session(make_space(trials=8), tmp_path))

    smallest = load_front("sim", str(tmp_path), objectives=["params"]).front
    careful = load_front("sim", str(tmp_path), max_drop=2.0).front

    everything = load_front("sim", str(tmp_path)).trials
    assert smallest[0].params == min(t.params for t in everything if t.accuracy_drop <= 30)
    assert careful and all(t.accuracy_drop <= 2.0 for t in careful)
    with pytest.raises(LrsearchError, match="'sped'"):
        load_front("sim", str(tmp_path), objectives=["sped"])


def test_half_written_line_of_a_killed_driver_is_forgotten(tmp_path):
    space = make_space(trials=4, sampler="random")
    session = open_session(space, tmp_path)
    run(session, trials=2)
    with session.store.journal.open("ab") as journal:
        journal.write(b'{"op_code": 5, "worker_id": "x", "stu')

    run(session := open_session(space, tmp_path))

    assert [record.number for record in session.records] == [0, 1, 2, 3]


def test_damaged_study_is_one_sentence_naming_file_and_line(tmp_path):
    session = open_session(make_space(), tmp_path)
    run(session, trials=1)
    lines = session.store.journal.read_bytes().splitlines(keepends=True)
    session.store.journal.write_bytes(b"".join([lines[0], b"garbage\n", *lines[1:]]))

    for read in (lambda: open_session(make_space(), tmp_path), lambda: load_front("sim", str(tmp_path))):
        with pytest.raises(LrsearchError, match=r"study\.journal is damaged at line 2"):
            read()


def test_damaged_checkpoint_of_an_unfinished_trial_is_named(tmp_path):
    session = open_session(make_space(), tmp_path)
    folder = session.store.trial(session.next_trial().number)
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"not a checkpoint")

    with pytest.raises(LrsearchError, match=r"trials/0/checkpoint\.pt"):
        open_session(make_space(), tmp_path)


def test_lock_keeps_a_second_driver_out(tmp_path):
    store = SweepStore(tmp_path, "sim")
    store.create()

    with store.lock():
        assert store.is_running()
        with pytest.raises(LrsearchError, match="already being run by process"), store.lock():
            pass
    assert not store.is_running()
    with store.lock():
        pass


@pytest.mark.parametrize("name", ["a/b", "..", "../a", "a..b", "", ".hidden", "-rf", "a b", "x" * 101])
def test_name_that_could_leave_the_folder_is_refused(tmp_path, name):
    with pytest.raises(LrsearchError, match="sweep name"):
        SweepStore(tmp_path, name)


def test_storage_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(LrsearchError, match="cannot be written"):
        SweepStore(tmp_path / "file", "sim").create()


def test_dense_record_comes_back(tmp_path):
    run(open_session(make_space(trials=1), tmp_path))

    assert load_front("sim", str(tmp_path)).dense == DENSE


def test_settings_of_the_measurement_are_drawn_like_hyperparameters(tmp_path):
    measure = {"dtype": {"choice": ["float32", "bfloat16"]}, "batch_size": 8}
    session = open_session(make_space(measure=measure, trials=12, sampler="random"), tmp_path)

    specs = [session.next_trial() for _ in range(12)]

    assert {spec.workplace.deployment.dtype for spec in specs} == {"float32", "bfloat16"}
    assert all(spec.workplace.deployment.batch_size == 8 for spec in specs)
    assert not any("measure" in spec.hyperparameters for spec in specs)
    told = read_records(session.store)
    assert [record.hyperparameters["measure"]["dtype"] for record in told] == [
        spec.workplace.deployment.dtype for spec in specs
    ]


def test_what_other_seeds_gave_is_told_again_by_the_next_driver(tmp_path):
    session = open_session(make_space(trials=6), tmp_path)
    run(session)
    summary = {"confirmed_seeds": 2, "accuracy_mean": 97.0, "accuracy_std": 0.5}
    (member, *_) = [record for record in session.records if record.pareto]
    write_json(session.store.trial(member.number) / CONFIRMED, summary)

    again = open_session(make_space(trials=6), tmp_path)

    assert {record.number for record in again.records if summary.items() <= record.extra.items()} == {member.number}


def test_a_record_knows_the_seed_that_its_trial_ran_with(tmp_path):
    session = open_session(make_space(trials=4, search={"seed": 3}), tmp_path)
    specs = [session.next_trial() for _ in range(4)]

    assert [record.seed for record in read_records(session.store)] == [spec.seed for spec in specs]
    assert len({spec.seed for spec in specs}) == 4


def test_importances_are_left_beside_the_front(tmp_path):
    methods = {"alds": {"budget": {"params": {"uniform": [0.1, 0.8]}}, "recalibrate": {"choice": [True, False]}}}
    session = open_session(make_space(trials=30, sampler="random", methods=methods), tmp_path)
    run(session)
    session.publish_front()

    told = json.loads((session.store.front / IMPORTANCE).read_text())
    assert told["alds"]["flops"]["budget.params"] > told["alds"]["flops"]["recalibrate"]
    assert told == read_importances(session.store)
