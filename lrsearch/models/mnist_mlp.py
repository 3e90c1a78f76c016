"""The fully connected networks of DLRT (Schotthöfer et al., NeurIPS 2022, 5.1)."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

_HIDDEN = 4


def mnist_mlp(width: int = 500, num_classes: int = 10) -> nn.Module:
    """Five linear layers, four of them ``width`` wide: (N, 1, 28, 28) to (N, num_classes).

    The paper's widths are 500 and 784.

    Raises:
        ValueError: ``width`` is not a whole number of 1 or more.
    """
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"width is {width!r}, expected a whole number of 1 or more")
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise((784, *(width,) * _HIDDEN)):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, num_classes))
