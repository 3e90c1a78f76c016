"""Networks for 8x8 grey images, small enough to train in seconds on one core."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut that is a 1x1 convolution where the shape changes.

    Maps (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        residual = functional.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return functional.relu(residual + self.downsample(x))


def _bottleneck(in_channels: int, width: int, stride: int) -> nn.Module:
    """1x1, 3x3 and 1x1, to four times ``width`` channels."""
    from torchvision.models.resnet import Bottleneck

    shortcut = nn.Conv2d(in_channels, 4 * width, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * width)
    block: nn.Module = Bottleneck(in_channels, width, stride, nn.Sequential(*shortcut))
    return block


def digits_resnet(width: int = 32, num_classes: int = 10, bottlenecks: bool = False) -> nn.Module:
    """A residual CNN for inputs of shape (N, 1, 8, 8).

    A stem and three residual blocks of ``width``, 2 ``width`` and 4 ``width`` channels at 8x8, 4x4 and 2x2
    positions, averaged into a linear head. Width 32: 308,074 parameters; 499,434 with ``bottlenecks``, which widen
    their output fourfold as those of a ResNet-50 do.

    Raises:
        ValueError: ``width`` is not a whole number of 1 or more.
    """
    _check_positive("width", width)
    block, wider = (_bottleneck, 4) if bottlenecks else (ResidualBlock, 1)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        block(width, width, 1),
        block(wider * width, 2 * width, 2),
        block(wider * 2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(wider * 4 * width, num_classes),
    )


def digits_mlp(width: int = 128, depth: int = 3, num_classes: int = 10) -> nn.Module:
    """A perceptron of ``depth`` linear layers for inputs of 64 values, such as (N, 1, 8, 8).

    Raises:
        ValueError: ``width`` or ``depth`` is not a whole number of 1 or more.
    """
    _check_positive("width", width)
    _check_positive("depth", depth)
    layers: list[nn.Module] = [nn.Flatten()]
    features = 64
    for _ in range(depth - 1):
        layers += [nn.Linear(features, width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))


def _check_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}, expected a whole number of 1 or more")
