"""Seeds made from seeds."""

from __future__ import annotations

import numpy as np


def derived_seed(seed: int, number: int) -> int:
    """A seed for the ``number``-th of several things that all depend on ``seed`` (epochs, images).

    The first 64 bits of ``numpy.random.SeedSequence((seed, number))``, which keeps the streams of
    neighbouring seeds and numbers apart. Both are 0 or more.
    """
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0])
