"""What each method's trials occupy, in Ray's words, and how many run side by side."""

from types import SimpleNamespace

import pytest

from lrsearch.errors import LrsearchError
from lrsearch.sweep.placement import placement, side_by_side
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
    assert side_by_side(space(**resources), {"CPU": 8.0, "GPU": 2.0, "memory": 16.0 * GIB}) == expected


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
        side_by_side(space(**resources), {"CPU": 8.0, "memory": 16.0 * GIB})

    assert all(word in str(caught.value) for word in words)


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
