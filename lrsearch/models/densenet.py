"""Densely connected networks for CIFAR of Huang et al. 2017, "Densely Connected Convolutional Networks", 3.

The basic kind: no bottlenecks, no compression in the transitions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_BLOCKS = 3


class DenseLayer(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution, whose ``growth`` outputs are added to the channels of the input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + growth, H, W)."""
        return torch.cat([x, self.conv1(functional.relu(self.bn1(x)))], 1)


class Transition(nn.Module):
    """Batch norm, ReLU, a 1x1 convolution that keeps the channels, and pooling to half the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H / 2, W / 2)."""
        return functional.avg_pool2d(self.conv1(functional.relu(self.bn1(x))), 2)


def densenet_cifar(depth: int, growth: int = 12, num_classes: int = 10) -> nn.Module:
    """Three dense blocks of (``depth`` - 4) / 3 layers: (N, 3, 32, 32) to (N, num_classes)."""
    channels = 16
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    for block in range(_BLOCKS):
        for _ in range((depth - 4) // _BLOCKS):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        if block < _BLOCKS - 1:
            layers.append(Transition(channels))
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(channels, num_classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network


def densenet22(num_classes: int = 10) -> nn.Module:
    """The network of 22 layers and growth rate 12 that ALDS compresses."""
    return densenet_cifar(22, num_classes=num_classes)
