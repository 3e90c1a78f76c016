"""Wide residual networks of Zagoruyko & Komodakis 2016, "Wide Residual Networks", 2, for CIFAR."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class WideBlock(nn.Module):
    """Twice batch norm, ReLU and a 3x3 convolution, and a shortcut that is a 1x1 convolution where the width changes.

    Maps (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.convShortcut: nn.Conv2d | None = None
        if in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        activated = functional.relu(self.bn1(x))
        residual = self.conv2(functional.relu(self.bn2(self.conv1(activated))))
        shortcut: Tensor = x if self.convShortcut is None else self.convShortcut(activated)
        output: Tensor = shortcut + residual
        return output


class WideStage(nn.Module):
    """Blocks in a row, the first of which may shrink and widen."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(in_channels, out_channels, stride)
        self.layer = nn.Sequential(first, *(WideBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks."""
        result: Tensor = self.layer(x)
        return result


class WideResNet(nn.Module):
    """A network of 6 ``blocks`` + 4 layers, ``width`` times as wide as ResNet, for inputs of shape (N, 3, 32, 32).

    The names in its state dict (``block1.layer.0.conv1``, ``convShortcut``, ..., ``fc``) are those of public
    PyTorch checkpoints.
    """

    def __init__(self, blocks: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = WideStage(16, 16 * width, blocks, 1)
        self.block2 = WideStage(16 * width, 32 * width, blocks, 2)
        self.block3 = WideStage(32 * width, 64 * width, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 32, 32) images to (N, num_classes) logits."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = functional.adaptive_avg_pool2d(functional.relu(self.bn1(x)), 1)
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


def wrn16_8(num_classes: int = 10) -> nn.Module:
    """WRN-16-8: 11.0 M parameters."""
    return WideResNet(2, 8, num_classes)


def wrn28_10(num_classes: int = 10) -> nn.Module:
    """WRN-28-10: 36.5 M parameters."""
    return WideResNet(4, 10, num_classes)
