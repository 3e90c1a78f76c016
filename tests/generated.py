"""Networks and data made up for tests, by import path."""

import torch
from torch import Generator, nn
from torch.utils.data import TensorDataset
from torchvision.models import AlexNet, VisionTransformer

from lrsearch.data import Splits
from lrsearch.data.images import ShiftAndFlip
from lrsearch.data.scores import mean_iou
from lrsearch.models import separate_projections


def images(
    shape: list[int],
    classes: int = 3,
    train: int = 96,
    held_out: int = 24,
    pixelwise: bool = False,
    shifted: bool = False,
) -> Splits:
    """Noise upon a pattern, or for segmenters a brighter half, that tells the class; ``shifted`` while training."""
    generator = Generator().manual_seed(0)

    def part(number: int) -> TensorDataset:
        _, height, width = shape
        inputs = 0.5 * torch.randn(number, *shape, generator=generator)
        labels = torch.arange(number) % classes
        if not pixelwise:
            pattern = torch.randn(classes, *shape, generator=Generator().manual_seed(1))
            return TensorDataset(inputs + pattern[labels], labels)
        targets = torch.zeros(number, height, width, dtype=torch.long)
        targets[:, :, width // 2 :] = labels.view(-1, 1, 1)
        targets[:, 0] = -100
        return TensorDataset(inputs + 2 * targets.clamp_min(0).unsqueeze(1), targets)

    parts = [part(number) for number in (train, held_out, held_out, held_out)]
    score = {"score": mean_iou} if pixelwise else {}
    augment = ShiftAndFlip(1, [0.0] * shape[0], flip=False) if shifted else None
    return Splits("generated", *parts, classes=classes, augment=augment, **score)


def tiny_vit(num_classes: int = 3) -> nn.Module:
    """A vision transformer of two blocks for images of 16x16 pixels."""
    network = VisionTransformer(16, 4, 2, 4, 32, 64, num_classes=num_classes)
    nn.init.normal_(network.heads.head.weight, std=0.02)
    return separate_projections(network)


def tiny_segmenter(num_classes: int = 3) -> nn.Module:
    """Maps grey images to logits of every pixel."""
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 24)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(24, num_classes, 1))


def narrow_alexnet(num_classes: int = 1000) -> nn.Module:
    """AlexNet without most of its 58 million parameters in Linear layers."""
    network = AlexNet(num_classes)
    network.classifier[1], network.classifier[4] = nn.Linear(9216, 32), nn.Linear(32, 32)
    network.classifier[6] = nn.Linear(32, num_classes)
    return network
