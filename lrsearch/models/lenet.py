"""LeNet-5 as the compression literature has it: after LeCun et al. 1998, with ReLU and the widths of Caffe."""

from __future__ import annotations

from torch import nn


def lenet5(num_classes: int = 10) -> nn.Module:
    """Two convolutions and two linear layers: (N, 1, 28, 28) to (N, num_classes), 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, num_classes),
    )
