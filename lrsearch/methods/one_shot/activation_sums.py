"""Sums over activations, taken in batch by batch, and what follows from them."""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGE = 1e-3


class Moments:
    """Mean and second moment of channels, over images and positions."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum = torch.zeros(channels, dtype=torch.float64)
        self._products = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Take in (N, channels, height, width)."""
        rows = values.transpose(0, 1).flatten(1)
        self._products += (rows @ rows.mT).double().cpu()
        self._sum += rows.sum(1).double().cpu()
        self._count += rows.shape[1]

    @property
    def mean(self) -> Tensor:
        """(channels,)."""
        return self._sum / self._count

    @property
    def second(self) -> Tensor:
        """(channels, channels), not centred."""
        return self._products / self._count

    @property
    def covariance(self) -> Tensor:
        """(channels, channels)."""
        return self.second - torch.outer(self.mean, self.mean)


class LeastSquares:
    """The W and c that bring W x + c closest to targets."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self._gram = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self._cross = torch.zeros(inputs + 1, outputs, dtype=torch.float64)

    def add(self, rows: Tensor, targets: Tensor) -> None:
        """Take in (n, inputs) and (n, outputs)."""
        extended = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
        self._gram += (extended.mT @ extended).double().cpu()
        self._cross += (extended.mT @ targets).double().cpu()

    def solution(self) -> tuple[Tensor, Tensor]:
        """W (outputs, inputs) and c (outputs,); where few rows leave W undetermined it stays small."""
        rows = self._gram[-1, -1]
        mean, target = self._gram[:-1, -1] / rows, self._cross[-1] / rows
        covariance = self._gram[:-1, :-1] / rows - torch.outer(mean, mean)
        ridge = _RIDGE * covariance.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
        identity = torch.eye(len(mean), dtype=torch.float64)
        weight = torch.linalg.solve(
            covariance + ridge * identity, self._cross[:-1] / rows - torch.outer(mean, target)
        ).mT
        return weight, target - weight @ mean
