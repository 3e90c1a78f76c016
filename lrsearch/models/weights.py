"""Files of weights: safetensors, or torch files of which only tensors and plain data are read."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.models.attention import unpack_projections

_SHOWN_KEYS = 5
_AUXILIARY_HEADS = frozenset({"aux_classifier", "aux1", "aux2", "AuxLogits"})
"""Torchvision's: losses in the middle of a network, of which what is deployed has nothing."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file of weights into ``model``, in place.

    ``.safetensors`` files are read as such, any other as a torch file whose content, or its entry ``state_dict`` or
    ``model``, is a state dict. A prefix that all its keys share and the model's do not (``module.``) is dropped, one
    that the model's share and its do not is put in front. Auxiliary heads for training that the model lacks are left
    out, and packed projections of attention are split up where the model has them separate. Missing counters of batch
    norm are left alone: files older than them are common.

    Raises:
        LrsearchError: the file is missing or unreadable, or its keys or shapes are not the model's.
    """
    state = _with_prefix_of(model.state_dict(), _without_common_prefix(_read_state(path), model.state_dict()))
    state = unpack_projections(_without_auxiliary_heads(state, model.state_dict()), model)
    problems = _mismatches(state, model.state_dict())
    if problems:
        raise LrsearchError(f"weights {path} do not fit the model: {'; '.join(problems)}")
    model.load_state_dict(state, strict=False)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise LrsearchError(f"weights {path} is not a file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    # torch raises this variety for files that are cut short, overwritten, or hold more than tensors.
    except (
        pickle.UnpicklingError,
        SafetensorError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
    ) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise LrsearchError(
            f"weights {path} is corrupt or holds more than tensors and plain data ({reason})"
        ) from error
    for entry in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    return _checked(content, path)


def _checked(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise LrsearchError(f"weights {path} holds {type(content).__name__}, expected a state dict")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise LrsearchError(f"weights {path} is not a state dict: {key!r} is {type(value).__name__}, not a tensor")
    return dict(content)


def _without_common_prefix(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    while state.keys() != expected.keys():
        prefix = next(iter(state)).partition(".")[0] + "."
        if not all(key.startswith(prefix) and key != prefix for key in state):
            break
        if any(key.startswith(prefix) for key in expected):
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _with_prefix_of(expected: Mapping[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = next(iter(expected), "").partition(".")[0] + "."
    if not all(key.startswith(prefix) for key in expected) or any(key.startswith(prefix) for key in state):
        return state
    return {prefix + key: value for key, value in state.items()}


def _without_auxiliary_heads(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    known = {part for key in expected for part in key.split(".")}
    return {key: value for key, value in state.items() if not _AUXILIARY_HEADS & set(key.split(".")) - known}


def _mismatches(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    reshaped = [
        f"{key} has shape {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    problems = []
    if missing:
        problems.append(f"missing {_some(missing)}")
    if unexpected:
        problems.append(f"unexpected {_some(unexpected)}")
    if reshaped:
        problems.append(_some(reshaped))
    return problems


def _some(items: list[str]) -> str:
    more = len(items) - _SHOWN_KEYS
    return ", ".join(items[:_SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
