"""What survives of low-rank training when its process dies: one file, complete or as it was before."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lrsearch.errors import LrsearchError
from lrsearch.files import replacing
from lrsearch.training.dlrt.layers import LowRankLayer

_FORMAT = 1
_REMEDY = "delete it to start this compression again"


@dataclass(frozen=True)
class SavedTraining:
    """Low-rank training after some of its epochs.

    Attributes:
        epoch: how many are finished.
        model: the state dict of the network: ranks are the shapes of its factors.
        optimizer: the state dict of the optimizer.
        history: of the finished epochs, as plain data.
        origin: what the training depends on, as plain data; only the same training may go on from here.
    """

    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    history: dict[str, Any]
    origin: dict[str, Any]

    def save(self, path: Path) -> None:
        """Replace the file at ``path`` in one step."""
        with replacing(path) as temporary:
            torch.save({"format": _FORMAT, **vars(self)}, temporary)

    @classmethod
    def load(cls, path: Path, origin: Mapping[str, Any]) -> SavedTraining:
        """Read a file onto the CPU; nothing but tensors and plain data is unpickled.

        Raises:
            LrsearchError: the file is damaged, or belongs to a training of another origin.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content.pop("format") != _FORMAT:
                raise LrsearchError(f"checkpoint {path} is of another version of lrsearch; {_REMEDY}")
            saved = cls(**content)
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            OSError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise LrsearchError(f"checkpoint {path} cannot be read ({reason}); {_REMEDY}") from error
        for key, value in origin.items():
            if saved.origin.get(key) != value:
                raise LrsearchError(
                    f"checkpoint {path} belongs to a compression with {key} {saved.origin.get(key)!r}, "
                    f"not {value!r}; {_REMEDY}"
                )
        return saved

    def restore(self, model: nn.Module, layers: Mapping[str, LowRankLayer], optimizer: Optimizer | None) -> None:
        """Put a network, its low-rank layers among it, and the optimizer back to where this was saved."""
        for name, layer in layers.items():
            factors = (self.model[f"{name}.{factor}"].to(layer.U.device) for factor in "USV")
            layer.set_factors(*factors)
        model.load_state_dict(self.model)
        if optimizer is not None:
            optimizer.load_state_dict(self.optimizer)
