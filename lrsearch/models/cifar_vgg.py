"""VGG-16 with batch norm for CIFAR.

Source: Simonyan & Zisserman 2015, configuration D; for 32x32 images with one hidden layer in the classifier, as Li
et al. 2017, "Pruning Filters for Efficient ConvNets", 4.1, and most of the pruning literature after it.
"""

from __future__ import annotations

from torch import nn

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16_cifar(num_classes: int = 10) -> nn.Module:
    """Maps (N, 3, 32, 32) to (N, num_classes): 15.0 M parameters and 313 M multiply-adds at 10 classes."""
    layers: list[nn.Module] = []
    channels = 3
    for block in _WIDTHS:
        for width in block:
            conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, num_classes))
    return nn.Sequential(*layers, nn.Flatten(), classifier)
