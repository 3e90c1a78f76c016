"""What is expected of a number that was seen at a few points: a Gaussian process with modest expectations."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

Values: TypeAlias = npt.NDArray[np.float64]

_LENGTH, _NOISE = 0.4, 0.03**2
"""What is expected of a length scale in the unit cube and of the noise's variance where the values' is 1."""
_DOUBT = (0.5, 0.8, 1.0)
"""Standard deviations of the logarithms of amplitude, length scales and noise around what is expected of them."""
_LEAST_SPREAD = 0.2


class Surrogate:
    """A Gaussian process (Matern 5/2, a length scale for each dimension) fitted to few values.

    Where a handful of points leaves the likelihood flat, amplitude, length scales and noise stay near what is usual:
    they maximise the posterior under log-normal priors. The process' mean is ``mean`` wherever nothing was seen.
    """

    def __init__(
        self, points: Values, values: Values, variances: Values, everywhere: Values, kernel: Any | None = None
    ) -> None:
        """Fit to n points of the unit cube, (n, d), and their values, (n,); n may be 0.

        Args:
            points: where the values were seen.
            values: what was seen.
            variances: what each value's own noise adds to that of all.
            everywhere: values that tell the process' mean and spread, those of other functions of the kind included.
            kernel: that of an earlier surrogate, taken as it is; by default the most probable is found.
        """
        self._points, self._values, self._variances = points, values, variances
        self._mean, self._spread = float(everywhere.mean()), max(float(everywhere.std()), _LEAST_SPREAD)
        if len(points):
            begin, optimizer = (_expected_kernel(points.shape[1]), _most_probable) if kernel is None else (kernel, None)
            self._process = self._fitted(begin, optimizer)

    @property
    def kernel(self) -> Any | None:
        """Amplitude, length scales and noise; None where nothing was seen."""
        return self._process.kernel_ if len(self._points) else None

    def predict(self, points: Values) -> tuple[Values, Values]:
        """Mean and standard deviation of the value itself, without noise, at points (n, d): twice (n,)."""
        if not len(self._points):
            return np.full(len(points), self._mean), np.full(len(points), self._spread)
        mean, deviation = self._process.predict(points, return_std=True)
        variance = np.maximum(deviation**2 - self._process.kernel_.k2.noise_level, 1e-10)
        return self._mean + self._spread * mean, self._spread * np.sqrt(variance)

    def believing(self, points: Values) -> Surrogate:
        """One that has also seen, at points (n, d), just what this one expects there (the kriging believer)."""
        if not len(self._points) or not len(points):
            return self
        believer = copy.copy(self)
        believer._points = np.concatenate([self._points, points])
        believer._values = np.concatenate([self._values, self.predict(points)[0]])
        believer._variances = np.concatenate([self._variances, np.zeros(len(points))])
        believer._process = believer._fitted(self._process.kernel_, None)
        return believer

    def _fitted(self, kernel: Any, optimizer: Any) -> Any:
        alpha = 1e-8 + self._variances / self._spread**2
        process = GaussianProcessRegressor(kernel, alpha=alpha, optimizer=optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound
            return process.fit(self._points, (self._values - self._mean) / self._spread)


def _expected_kernel(dimensions: int) -> Any:
    lengths = Matern([_LENGTH] * dimensions, (0.03, 5.0), nu=2.5)
    return ConstantKernel(1.0, (0.05, 20.0)) * lengths + WhiteKernel(_NOISE, (6e-6, 1.0))


def _most_probable(
    loss: Callable[[Values], tuple[float, Values]], expected: Values, bounds: Sequence[tuple[float, float]]
) -> tuple[Values, float]:
    """The kernel's logarithms where likelihood times prior is largest, as scikit-learn asks for them."""
    amplitude, length, noise = _DOUBT
    doubt = np.array([amplitude, *[length] * (len(expected) - 2), noise])

    def negative_log_posterior(logarithms: Values) -> tuple[float, Values]:
        value, slope = loss(logarithms)
        away = (logarithms - expected) / doubt
        return value + 0.5 * float(away @ away), slope + away / doubt

    found = minimize(negative_log_posterior, expected, jac=True, method="L-BFGS-B", bounds=bounds)
    return found.x, float(found.fun)
