"""What is asked first, what a grid holds, and what TPE looks back on."""

import optuna
import pytest

from lrsearch.sweep import sampler
from lrsearch.sweep.study import read_records
from tests.sweep.simulator import grid_space, make_space, open_session, run


def points(session):
    return [(r.method, str(r.hyperparameters)) for r in read_records(session.store)]


def test_grid_tries_every_point_once_and_ends(tmp_path):
    space = grid_space(epochs=0)
    run(open_session(space, tmp_path), trials=7)

    run(session := open_session(space, tmp_path))

    assert len(points(session)) == len(set(points(session))) == 10 + 10 * 2


def test_enqueued_points_come_first_and_the_sampler_fills_them_up(tmp_path):
    methods = {"tucker": {"alpha": {"loguniform": [1.5, 10]}, "beta": {"uniform": [0.5, 2]}}, "alds": {}}
    enqueue = [{"method": "tucker", "alpha": 2.5}, {"method": "alds", "budget": {"params": 0.25}}]
    space = make_space(methods=methods, search={"enqueue": enqueue})

    session = open_session(space, tmp_path)
    first, second, third = (session.next_trial() for _ in range(3))
    session = open_session(space, tmp_path)

    assert (first.method, first.hyperparameters["alpha"]) == ("tucker", 2.5)
    assert 0.5 <= first.hyperparameters["beta"] <= 2
    assert (second.method, second.hyperparameters["budget"]) == ("alds", {"params": 0.25})
    assert third.hyperparameters != first.hyperparameters
    orphans = [session.next_trial() for _ in range(3)]
    assert [o.hyperparameters for o in orphans] == [t.hyperparameters for t in (first, second, third)]


@pytest.mark.parametrize("memory", [3, 400])
def test_tpe_looks_at_recent_trials_and_the_best_of_the_others(memory, monkeypatch):
    monkeypatch.setattr(sampler, "MEMORY", memory)
    tpe = sampler.RecentTPESampler(seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=tpe)
    for number in range(8):
        study.tell(study.ask(), [float(number), 1.0])
    tpe.best = {1, 6}

    recent = [trial.number for trial in tpe._recent(study)._get_trials(deepcopy=False)]

    assert recent == ([1, 5, 6, 7] if memory == 3 else list(range(8)))
    assert len(study.trials) == 8
    tpe.best = set(range(8))
    assert [trial.number for trial in tpe._recent(study)._get_trials(deepcopy=False)] == list(range(8))[-2 * memory :]


def test_tpe_keeps_away_from_where_trials_fail():
    """Whatever is below a half cannot be built, and would be best."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler.RecentTPESampler(seed=0))
    sizes = []
    for _ in range(60):
        trial = study.ask()
        sizes.append(trial.suggest_float("size", 0, 1))
        if sizes[-1] < 0.5:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, [1.0, sizes[-1]])

    assert sum(size < 0.5 for size in sizes[-30:]) < 15


def test_tpe_finds_the_front_with_a_short_memory(monkeypatch, tmp_path):
    """Against random search, over the same budget, on curves where alds dominates tucker."""
    monkeypatch.setattr(sampler, "MEMORY", 30)
    run(learning := open_session(make_space(trials=60), tmp_path / "tpe"))
    run(drawing := open_session(make_space(trials=60, sampler="random"), tmp_path / "random"))

    def share(session):
        return sum(record.method == "alds" for record in session.records) / 60

    assert share(learning) > share(drawing)
