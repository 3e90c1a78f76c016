"""The residual networks for CIFAR of He et al. 2016, "Deep Residual Learning for Image Recognition", 4.2."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Option = Literal["A", "B"]


class PaddedShortcut(nn.Module):
    """Keeps every ``stride``-th position and pads new channels with zeros, half of them on either side (option A)."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + new_channels, ceil(H / stride), ceil(W / stride))."""
        before = self.new_channels // 2
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut.

    Where the shape changes, the shortcut pads with zeros (option A of the paper) or is a 1x1 convolution with
    batch norm (option B).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, option: Option) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = PaddedShortcut(out_channels - in_channels, stride)
            if option == "B":
                self.shortcut = nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
                )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        residual = functional.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return functional.relu(residual + self.shortcut(x))


class CifarResNet(nn.Module):
    """A residual network of 6 ``blocks`` + 2 layers for inputs of shape (N, 3, 32, 32).

    The names in its state dict (``conv1``, ``bn1``, ``layer1.0.conv1``, ..., ``linear``) are those of the
    public CIFAR checkpoints.

    Raises:
        ValueError: ``option`` is neither A nor B.
    """

    def __init__(self, blocks: int, num_classes: int, option: Option) -> None:
        super().__init__()
        if option not in ("A", "B"):
            raise ValueError(f"option is {option!r}, expected A or B")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1, option)
        self.layer2 = _stage(16, 32, blocks, 2, option)
        self.layer3 = _stage(32, 64, blocks, 2, option)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 32, 32) images to (N, num_classes) logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int, option: Option) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride, option)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1, option) for _ in range(blocks - 1)))


def cifar_resnet(depth: int, num_classes: int = 10, option: Option = "A") -> nn.Module:
    """The network of ``depth`` layers, 20, 32, 44, 56 or 110, with shortcuts of one ``option``."""
    return CifarResNet((depth - 2) // 6, num_classes, option)


CIFAR_RESNETS: dict[str, Callable[..., nn.Module]] = {
    f"resnet{depth}": partial(cifar_resnet, depth) for depth in (20, 32, 44, 56, 110)
}
"""Name -> builder, taking ``num_classes`` and ``option``. ResNet-20: 269,722 parameters, 40.55 M multiply-adds."""
