"""The sampler of expected gains: where it begins, what it finds, what it keeps away from."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrsearch.distributions import Choice, IntUniform, Uniform
from lrsearch.sweep import gain_sampler
from lrsearch.sweep.gain_sampler import ExpectedGainSampler
from lrsearch.sweep.points import coordinates, optuna_distribution, unit_point
from tests.sweep.simulator import kept, make_space, open_session, run, work

numbers = st.floats(0.01, 100, allow_subnormal=False)
ranges = st.tuples(numbers, numbers).map(sorted)
distributions = st.one_of(
    st.builds(lambda ends, log: Uniform(*ends, log), ranges, st.booleans()),
    st.builds(
        lambda low, more, log: IntUniform(low, low + more, log), st.integers(1, 50), st.integers(0, 50), st.booleans()
    ),
    st.builds(lambda values: Choice(tuple(values)), st.lists(st.integers(), min_size=1, max_size=4, unique=True)),
)


@given(distribution=distributions, quantile=st.floats(0, 1))
def test_every_quantile_is_a_value_and_lies_where_it_should(distribution, quantile):
    value = distribution.at(quantile)
    places = coordinates(distribution, value)

    assert distribution.contains(value)
    assert optuna_distribution(distribution)._contains(optuna_distribution(distribution).to_internal_repr(value))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    if isinstance(distribution, Uniform) and distribution.high > 1.01 * distribution.low:
        assert places == [pytest.approx(quantile, abs=1e-6)]
    if isinstance(distribution, Choice):
        assert sum(places) == 1
        assert distribution.values[places.index(1)] == value


def test_a_method_without_choices_is_a_point_too():
    assert unit_point({}, {}) == [0.0]


@pytest.mark.parametrize(
    ("methods", "begun"), [(["alds"], 3), (["alds", "svd"], 3), (["alds", "svd", "pca", "l_rank"], 4)]
)
def test_every_method_begins_and_their_places_differ(tmp_path, methods, begun):
    budget = {"budget": {"params": {"uniform": [0.1, 0.8]}}}
    for seed, places in enumerate([[0.45, 0.24, 0.66, 0.45], [0.24, 0.66, 0.45, 0.24]]):
        search = {"seed": seed}
        space = make_space(sampler="gp", trials=begun, methods=dict.fromkeys(methods, budget), search=search)
        run(session := open_session(space, tmp_path, name=f"sweep{seed}"))

        assert {record.method for record in session.records} == set(methods)
        found = [round(record.hyperparameters["budget"]["params"], 2) for record in session.records]
        assert found == places[:begun]


def test_it_finds_a_better_front_than_tpe(tmp_path):
    def volume(sampler, seed):
        space = make_space(sampler=sampler, trials=16, search={"seed": seed})
        run(session := open_session(space, tmp_path / f"{sampler}{seed}"))
        return session._front.hypervolume

    assert all(volume("gp", seed) > volume("tpe", seed) for seed in range(3))


def test_it_keeps_away_from_what_cannot_be_built(tmp_path):
    """Networks below 0.4 of the size fail, and would be best."""
    space = make_space(sampler="gp", trials=24, methods={"alds": {"budget": {"params": {"uniform": [0.1, 0.8]}}}})
    session, sizes = open_session(space, tmp_path), []

    while spec := session.next_trial():
        sizes.append(spec.hyperparameters["budget"]["params"])
        if sizes[-1] < 0.4:
            session.trial_ended(spec.number, worker_died=True)
        else:
            for _ in work(session, spec):
                pass

    print([round(s, 3) for s in sizes])
    assert sum(size < 0.4 for size in sizes[12:]) <= 4
    assert min(size for size in sizes if size >= 0.4) < 0.45


def test_trials_side_by_side_differ(tmp_path):
    session = open_session(make_space(sampler="gp", trials=30), tmp_path)
    run(session, trials=6)

    asked = [session.next_trial() for _ in range(8)]

    places = sorted((spec.method, kept(spec)) for spec in asked)
    pairs = itertools.pairwise(places)
    assert all(a[0] != b[0] or b[1] - a[1] > 0.002 for a, b in pairs)


def test_choices_and_methods_that_have_none_are_searched_too(tmp_path):
    methods = {
        "tucker": {"alpha": {"choice": [2.0, 3.0, 5.0]}, "beta": {"loguniform": [0.5, 2]}},
        "alds": {"budget": {"params": 0.3}},
    }
    run(session := open_session(make_space(sampler="gp", trials=12, methods=methods), tmp_path))

    alphas = {record.hyperparameters["alpha"] for record in session.records if record.method == "tucker"}
    assert alphas == {2.0, 3.0, 5.0}
    assert 1 <= sum(record.method == "alds" for record in session.records) <= 2


def test_a_resumed_sweep_looks_back_on_all_that_was_tried(tmp_path):
    space = make_space(sampler="gp", trials=16)
    run(open_session(space, tmp_path), trials=10)

    run(session := open_session(space, tmp_path))

    assert len({(record.method, str(record.hyperparameters)) for record in session.records}) == 16
    assert sum(record.method == "alds" for record in session.records[10:]) >= 4, "alds dominates tucker"


def test_of_many_trials_the_latest_and_the_best_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(gain_sampler, "_LATEST", 5)
    monkeypatch.setattr(gain_sampler, "_BEST", 3)
    run(session := open_session(make_space(sampler="random", trials=40), tmp_path))
    sampler = ExpectedGainSampler(0, session.space)

    looked_at = sampler._look_at(session._study._study.get_trials(deepcopy=False))

    for method, trials in looked_at.items():
        numbers = [record.number for record in session.records if record.method == method]
        best = {record.number for record in session.records if record.pareto and record.method == method}
        assert {trial.number for trial in trials} == {*numbers[-5:], *sorted(best - set(numbers[-5:]))[-3:]}
