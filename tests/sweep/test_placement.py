"""What each method's trials occupy, in Ray's words, and how many run side by side."""

from types import SimpleNamespace

import pytest

from lrsearch.errors import LrsearchError
from lrsearch.sweep.placement import placement, require_room, reserved, room
from tests.sweep.simulator import make_space, open_session

GIB = 2**30


def space(**resources):
    return make_space(resources=resources)


def test_methods_reserve_their_own():
    reserve = placement(space(cpus=0.5, memory=2, methods={"tucker": {"cpus": 4}}))

    def bundle(method):
        return reserve({"spec": SimpleNamespace(method=method)}).bundles

    assert bundle("alds") == [{"CPU": 0.5, "memory": 2 * GIB}]
    assert bundle("tucker") == [{"CPU": 4.0, "memory": 2 * GIB}]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, 8),
        ({"cpus": 3}, 2),
        ({"gpus": 0.5}, 4),
        ({"cpus": 0.5, "memory": 3}, 5),
        ({"max_concurrent": 3}, 3),
        ({"cpus": 8, "methods": {"tucker": {"cpus": 2}}}, 4),
    ],
)
def test_as_many_run_as_fit_of_the_most_modest_method(resources, expected):
    assert require_room(space(**resources), [{"CPU": 8.0, "GPU": 2.0, "memory": 16.0 * GIB}]) == expected


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"cpus": 9}, ["9 CPUs", "alds", "8 CPUs"]),
        ({"gpus": 1}, ["1 GPUs", "0 GPUs"]),
        ({"methods": {"tucker": {"memory": 64}}}, ["64 GiB", "tucker", "16 GiB"]),
    ],
)
def test_what_never_fits_is_one_sentence(resources, words):
    with pytest.raises(LrsearchError) as caught:
        require_room(space(**resources), [{"CPU": 8.0, "memory": 16.0 * GIB}, {"CPU": 2.0}])

    assert all(word in str(caught.value) for word in words)


def test_trials_do_not_span_machines():
    machines = [{"CPU": 3.0}, {"CPU": 3.0}, {"CPU": 1.0, "GPU": 8.0}, {}]

    assert [room(space(cpus=cpus), machines) for cpus in (1, 2, 3, 4)] == [7, 2, 2, 0]
    assert room(space(cpus=0.5, gpus=1), machines) == 2
    with pytest.raises(LrsearchError, match="4 CPUs per trial of alds, but Ray has at most 3 CPUs on one machine"):
        require_room(space(cpus=4), machines)
    with pytest.raises(LrsearchError, match="2 CPUs and 1 GPUs per trial"):
        require_room(space(cpus=2, gpus=1), machines)


def test_cluster_that_grows_may_be_empty_at_first():
    assert require_room(space(gpus=1, workers=8), [{}]) == 8
    assert require_room(space(workers=8, max_concurrent=2), []) == 2


def test_kinds_of_accelerators_are_not_mixed_where_speed_counts():
    machines = [
        {"CPU": 8.0, "GPU": 4.0, "accelerator_type:A100": 1.0},
        {"CPU": 8.0, "GPU": 2.0, "accelerator_type:H100": 1.0},
        {"CPU": 8.0},
    ]

    with pytest.raises(LrsearchError, match=r"machines with A100 and with H100, .* name those to use"):
        require_room(make_space(objectives={"throughput": "max"}, resources={"gpus": 1}), machines)
    assert require_room(make_space(objectives={"flops": "min"}, resources={"gpus": 1}), machines) == 6
    chosen = make_space(objectives={"throughput": "max"}, resources={"gpus": 1, "accelerator": "H100"})
    assert require_room(chosen, machines) == 2
    assert list(reserved(chosen.resources)["resources"]) == ["accelerator_type:H100"]
    with pytest.raises(LrsearchError, match="asks for a B200 per trial of alds, but Ray has at most no B200"):
        require_room(space(gpus=1, accelerator="B200"), machines)


@pytest.mark.parametrize(
    ("methods", "word"), [({"dlrt": {"cpus": 2}}, "dlrt"), ({"tucker": {"gpus": 1}}, "resources.gpus is 0")]
)
def test_resources_of_methods_are_checked(methods, word):
    with pytest.raises(LrsearchError, match=word):
        space(methods=methods)


def test_threads_of_a_method_do_not_change_how_speed_is_measured(tmp_path):
    session = open_session(space(cpus=2, methods={"tucker": {"cpus": 4}}), tmp_path)
    specs = {spec.method: spec for spec in (session.next_trial(), session.next_trial())}

    assert (specs["alds"].threads, specs["tucker"].threads) == (2, 4)
    assert specs["alds"].workplace == specs["tucker"].workplace and specs["tucker"].workplace.threads == 2
