"""Gaussian processes against their textbook formulas."""

import numpy as np
import pytest

from lrsearch.sweep.surrogate import Surrogate


def matern(points, others, kernel):
    """sigma^2 (1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r), written down once more."""
    away = np.sqrt(np.square((points[:, None] - others) / kernel.k1.k2.length_scale).sum(-1)) * np.sqrt(5)
    return kernel.k1.k1.constant_value * (1 + away + away**2 / 3) * np.exp(-away)


@pytest.fixture
def seen():
    generator = np.random.default_rng(0)
    points = generator.random((9, 2))
    return points, np.sin(5 * points[:, 0]) + 0.1 * points[:, 1], generator.choice([0.0, 0.04], 9)


def test_predictions_are_those_of_the_posterior(seen):
    points, values, variances = seen
    surrogate = Surrogate(points, values, variances, values)
    elsewhere = np.random.default_rng(1).random((20, 2))

    mean, deviation = surrogate.predict(elsewhere)

    kernel, centre, spread = surrogate._process.kernel_, values.mean(), values.std()
    noise = np.diag(variances / spread**2 + 1e-8 + kernel.k2.noise_level)
    inverse = np.linalg.inv(matern(points, points, kernel) + noise)
    across = matern(elsewhere, points, kernel)
    variance = kernel.k1.k1.constant_value - np.einsum("ij,jk,ik->i", across, inverse, across)
    np.testing.assert_allclose(mean, centre + spread * across @ inverse @ ((values - centre) / spread), atol=1e-6)
    np.testing.assert_allclose(deviation, spread * np.sqrt(variance), atol=1e-5)


def test_where_nothing_was_seen_all_that_is_known_is_the_kind():
    everywhere = np.array([1.0, 3.0])
    mean, deviation = Surrogate(np.empty((0, 2)), np.empty(0), np.empty(0), everywhere).predict(np.zeros((3, 2)))

    assert mean.tolist() == [2.0] * 3
    assert deviation.tolist() == [1.0] * 3


def test_one_value_leaves_what_is_far_open():
    surrogate = Surrogate(np.array([[0.0]]), np.array([2.0]), np.zeros(1), np.array([0.0, 2.0]))

    mean, deviation = surrogate.predict(np.array([[0.0], [1.0]]))

    assert mean[0] > 1.9 > 1.3 > mean[1] > 1.0
    assert deviation[0] < 0.2 < deviation[1]


def test_a_believer_is_as_sure_as_if_it_had_seen_and_expects_the_same(seen):
    points, values, variances = seen
    surrogate, doubtful = Surrogate(points, values, variances, values), np.array([[0.95, 0.05], [0.0, 1.0]])

    believer = surrogate.believing(doubtful)

    before, after = surrogate.predict(doubtful), believer.predict(doubtful)
    np.testing.assert_allclose(after[0], before[0], atol=0.01)
    assert (after[1] < before[1]).all()
    assert surrogate.predict(doubtful)[1].tolist() == before[1].tolist()
