"""The error of a layer as a function of its rank, from singular values alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_Floats: TypeAlias = npt.NDArray[np.float64]
ErrorMeasure: TypeAlias = Callable[[_Floats, float], _Floats]
"""(singular values of the slices, of shape (..., slices, r) and descending, where several groups of a convolution
come first; largest singular value of the whole weight) -> the errors of the ranks 0 to r."""


def proxy(values: _Floats, norm: float) -> _Floats:
    """max_i sigma_{j+1}(W_i) / sigma_1(W): the largest singular value that a slice drops, relative to the weight's.

    What the ALDS authors' program minimises. For several slices it lacks the factor sqrt(k) of Theorem 1, so it
    is a lower bound of the relative operator-norm error; allocations by the true bounds make worse networks.
    """
    largest = np.append(values.reshape(-1, values.shape[-1]).max(axis=0), 0.0)
    return _relative(largest, norm)


def theorem1(values: _Floats, norm: float) -> _Floats:
    """sqrt(k) max_i sigma_{j+1}(W_i) / sigma_1(W), the bound of ALDS Theorem 1 on the relative operator-norm error."""
    bound: _Floats = proxy(values, norm) * np.sqrt(values.shape[-2])
    return bound


def sum_bound(values: _Floats, norm: float) -> _Floats:
    """sqrt(sum_i sigma_{j+1}(W_i)^2) / sigma_1(W): a tighter bound than Theorem 1, of the worst group."""
    squares = (values**2).sum(axis=-2).reshape(-1, values.shape[-1]).max(axis=0)
    return _relative(np.append(squares, 0.0) ** 0.5, norm)


def energy(values: _Floats, norm: float) -> _Floats:
    """||W - What||_F / ||W||_F, the relative error in the Frobenius norm; ``norm`` is not needed."""
    lost = loss(values, norm)
    return _relative(lost**0.5, float(lost[0]) ** 0.5)


def loss(values: _Floats, norm: float) -> _Floats:
    """||W - What||_F^2, the sum of the squared singular values that are dropped; ``norm`` is not needed."""
    squares = (values**2).reshape(-1, values.shape[-1]).sum(axis=0)
    return np.append(squares[::-1].cumsum()[::-1], 0.0)


def _relative(errors: _Floats, norm: float) -> _Floats:
    return errors / norm if norm > 0 else np.zeros_like(errors)
