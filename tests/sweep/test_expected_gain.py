"""Expected gains of hypervolume against drawing what may come, and what makes a point worth less."""

import numpy as np
import pytest

from lrsearch.front import hypervolume
from lrsearch.sweep import expected_gain
from lrsearch.sweep.expected_gain import ExpectedGain
from lrsearch.sweep.points import Tried

LEAST, DENSE = (0.5, 0.0), (1.0, None)


class Known:
    """In place of a surrogate: what is expected of an objective at a point is its coordinate."""

    kernel = None

    def __init__(self, points, values, variances, everywhere, kernel):
        self.believing = lambda _: self

    def predict(self, points):
        return points[:, self.column], np.full(len(points), 0.1)


def tried(points, gains, **others):
    return Tried(
        points=points, gains=gains, sizes=[0.0] * len(points), stopped=[False] * len(points), ended=points, **others
    )


@pytest.fixture
def expected_of_coordinates(monkeypatch):
    """``of`` for two objectives whose means are a point's coordinates, each with a deviation of 0.1."""
    columns = iter([0, 0, 1])

    def known(*arguments):
        surrogate = Known(*arguments)
        surrogate.column = next(columns)
        return surrogate

    monkeypatch.setattr(expected_gain, "Surrogate", known)
    monkeypatch.setattr(expected_gain, "_FEWEST_FOR_LINE", 99)


def test_gain_is_that_of_many_draws(expected_of_coordinates):
    front = [[0.95, 0.3], [0.8, 0.5], [0.6, 0.8]]
    far = [[7.0, 7.0]] * 3
    points = np.array([[0.5, 0.5], [0.9, 0.9], [0.2, 0.95], [0.7, 0.4]])

    found = ExpectedGain({"alds": tried(far, front)}, LEAST, DENSE).of("alds", points)

    scaled = [((a - 0.5) / 0.5, c / 0.8) for a, c in front]
    drawn = np.random.default_rng(0).normal(points[:, None], 0.1, (4, 4000, 2))
    drawn = np.minimum(drawn, expected_gain._MARGIN)
    here = hypervolume(scaled, (0, 0))
    gains = [np.mean([hypervolume([*scaled, draw], (0, 0)) - here for draw in draws]) for draws in drawn]
    np.testing.assert_allclose(found * expected_gain._MARGIN**2, gains, rtol=0.1, atol=2e-3)
    assert found.argmax() == 1


def test_failures_and_trials_that_were_or_run_make_a_point_worth_less():
    gains = [[0.9, 0.2], [0.7, 0.6]]
    points = np.array([[0.1], [0.12], [0.5], [0.52], [0.9]])

    free = ExpectedGain({"alds": tried([[0.1], [0.9]], gains)}, LEAST, DENSE).of("alds", points)
    taken = ExpectedGain({"alds": tried([[0.1], [0.9]], gains, running=[[0.5]])}, LEAST, DENSE).of("alds", points)
    failing = ExpectedGain({"alds": tried([[0.1], [0.9]], gains, lost=[[0.55]])}, LEAST, DENSE).of("alds", points)

    assert free[0] == taken[0] == free[4] == 0
    assert taken[2] == 0 < taken[3] < free[3]
    assert failing[2] < 0.6 * free[2]


def test_a_method_that_was_never_tried_is_judged_by_the_others():
    known = tried([[0.2], [0.8]], [[0.9, 0.2], [0.7, 0.6]])

    of = ExpectedGain({"alds": known, "tucker": Tried()}, LEAST, DENSE).of("tucker", np.array([[0.3, 0.3], [0.6, 0.1]]))

    assert (of > 0).all()
    assert of[0] == pytest.approx(of[1])


def test_a_method_tried_once_is_judged_at_other_sizes_by_the_line():
    """A method that was as bad as others are where networks are small is expected to be better where they are not."""
    sizes = [-4.0, -3.0, -2.0, -1.0]
    line = Tried(
        [], [[0.0], [0.3], [0.6], [0.9]], [[0.5, 0.94], [0.6, 0.87], [0.7, 0.75], [0.8, 0.5]], sizes, [False] * 4
    )
    once = Tried([], [[0.0]], [[0.52, 0.94]], [-4.0], [False])
    judged = ExpectedGain({"alds": line, "tucker": once}, LEAST, DENSE)

    level = judged._scaled(once) @ [1, 0]
    slope = judged._line[1, 0]

    assert slope == pytest.approx(0.2, abs=0.03)  # of half a unit, for each doubling
    assert judged._above_line(once)[0, 0] == pytest.approx(level[0] - judged._line[0, 0] + 4 * slope)
    assert judged._line[1, 1] < 0  # larger networks gain less of the other objective


def test_accuracies_far_below_use_are_all_alike():
    judged = ExpectedGain({"alds": tried([[0.1], [0.5], [0.9]], [[0.1, 0.9], [-0.4, 0.9], [0.9, 0.2]])}, LEAST, DENSE)

    assert judged._scaled(judged._tried["alds"])[:, 0].tolist() == pytest.approx([-0.8, -1.0, 0.8])
    assert judged.on_front("alds") == [0, 1, 2]


def test_kernels_are_sought_anew_only_where_other_points_were_seen():
    kernels, points = {}, np.array([[0.3]])
    first = tried([[0.1], [0.5]], [[0.9, 0.2], [0.7, 0.6]])

    fresh = ExpectedGain({"alds": first, "svd": first}, LEAST, DENSE, kernels).of("alds", points)
    ExpectedGain({"alds": first, "svd": first}, LEAST, DENSE, kernels).of("svd", points)
    known = dict(kernels)
    more = tried([[0.1], [0.5], [0.8]], [[0.9, 0.2], [0.7, 0.6], [0.6, 0.8]])
    changed = ExpectedGain({"alds": first, "svd": more}, LEAST, DENSE, kernels)
    changed.of("alds", points)
    changed.of("svd", points)

    assert fresh.tolist() == ExpectedGain({"alds": first, "svd": first}, LEAST, DENSE).of("alds", points).tolist()
    assert [kernels[key][1] == known[key][1] for key in known if key[0] == "alds"] == [True] * 3
    assert all(kernels[key][0] != known[key][0] for key in known if key[0] == "svd")
