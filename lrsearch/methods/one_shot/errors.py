"""The error of a layer as a function of its rank, from singular values alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_Floats: TypeAlias = npt.NDArray[np.float64]
ErrorMeasure: TypeAlias = Callable[[_Floats, float], _Floats]
"""(singular values of the slices, of shape (slices, r) and descending; largest singular value of the whole weight)
-> the errors of the ranks 0 to r."""


def proxy(values: _Floats, norm: float) -> _Floats:
    """max_i sigma_{j+1}(W_i) / sigma_1(W): the largest singular value that a slice drops, relative to the weight's.

    What the ALDS authors' program minimises. For several slices it lacks the factor sqrt(k) of Theorem 1, so it
    is a lower bound of the relative operator-norm error; allocations by the true bounds make worse networks.
    """
    largest = np.append(values.max(axis=0), 0.0)
    return largest / norm if norm > 0 else np.zeros_like(largest)
