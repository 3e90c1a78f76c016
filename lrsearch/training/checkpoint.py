"""What survives of a training when its process dies: one file, complete or as it was before."""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lrsearch.errors import LrsearchError
from lrsearch.files import replacing

_FORMAT = 2


@dataclass(frozen=True)
class Epoch:
    """One finished epoch.

    Attributes:
        epoch: its number, from 1.
        epochs: how many the training has.
        loss: mean over the epoch's training images.
        accuracy: on the validation split after the epoch, in percent.
        lr: learning rate of the epoch's first step.
        seconds: wall time of the epoch with its validation.
        scores: what else the data set measures on the validation split, such as pixel accuracy.
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float
    lr: float
    seconds: float
    scores: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As plain numbers by name, the scores among them."""
        row = asdict(self)
        del row["scores"]
        return row | self.scores


@dataclass(frozen=True)
class Checkpoint:
    """A training after some of its epochs.

    Attributes:
        model: the state dict of the network.
        optimizer: the state dict of the optimizer.
        history: the finished epochs, in order.
        origin: what the training depends on, as plain data; only the same training may go on from here.
        average: the state dict of the averaged network; empty where nothing is averaged.
        scaler: the state dict of the loss scaling; empty where losses are not scaled.
    """

    model: dict[str, Any]
    optimizer: dict[str, Any]
    history: list[Epoch]
    origin: dict[str, Any]
    average: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Replace the file at ``path`` in one step."""
        content = {
            "format": _FORMAT,
            "model": self.model,
            "optimizer": self.optimizer,
            "history": [asdict(epoch) for epoch in self.history],
            "origin": self.origin,
            "average": self.average,
            "scaler": self.scaler,
        }
        with replacing(path) as temporary:
            torch.save(content, temporary)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint onto the CPU; nothing but tensors and plain data is unpickled.

        Raises:
            LrsearchError: the file is missing, damaged, or no checkpoint.
        """
        remedy = "delete it to restart this training from its first epoch"
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content["format"] != _FORMAT:
                raise LrsearchError(f"checkpoint {path} has format {content['format']!r}, expected {_FORMAT}; {remedy}")
            history = [Epoch(**epoch) for epoch in content["history"]]
            model, optimizer, *rest = (content[key] for key in ("model", "optimizer", "origin", "average", "scaler"))
            return cls(model, optimizer, history, *rest)
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise LrsearchError(f"checkpoint {path} cannot be read ({reason}); {remedy}") from error

    def restore(
        self,
        path: Path,
        origin: dict[str, Any],
        model: nn.Module,
        optimizer: Optimizer,
        average: nn.Module | None = None,
    ) -> None:
        """Put network, optimizer and averaged network back to where this checkpoint, read from ``path``, was made.

        Raises:
            LrsearchError: it belongs to another training or another network.
        """
        for key, value in origin.items():
            if self.origin.get(key) != value:
                raise LrsearchError(
                    f"checkpoint {path} belongs to a training with {key} {self.origin.get(key)!r}, "
                    f"not {value!r}; delete it to restart this training from its first epoch"
                )
        try:
            model.load_state_dict(self.model)
            optimizer.load_state_dict(self.optimizer)
            if average is not None:
                average.load_state_dict(self.average)
        except (RuntimeError, ValueError, KeyError) as error:
            raise LrsearchError(
                f"checkpoint {path} belongs to another network; delete it to restart this training from its first epoch"
            ) from error


def read_history(path: Path) -> list[Epoch]:
    """The epochs that a checkpoint holds.

    Raises:
        LrsearchError: the file is missing, damaged, or no checkpoint.
    """
    return Checkpoint.load(path).history
