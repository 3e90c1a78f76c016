"""How a trial ended, as its folder keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lrsearch.errors import LrsearchError, hide_passwords
from lrsearch.files import read_json, write_json

RESULT = "result.json"


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write ``result.json``, complete or not at all."""
    write_json(folder / RESULT, result)


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a finished trial left behind, or None while it has not finished."""
    return read_json(folder / RESULT, "delete it to finish the trial again")


def failed_result(reason: str) -> dict[str, Any]:
    """What is kept of a trial that ended without a network."""
    return {"state": "failed", "reason": reason, "metrics": {}, "epochs": []}


def pruned_result(
    reason: str, metrics: Mapping[str, float], epochs: Sequence[Mapping[str, float]] = ()
) -> dict[str, Any]:
    """What is kept of a trial that was stopped early, with what was known of it by then."""
    return {"state": "pruned", "reason": reason, "metrics": dict(metrics), "epochs": [dict(e) for e in epochs]}


def failure_reason(error: Exception) -> str:
    """An error as one line for tables."""
    text = hide_passwords(" ".join(str(error).split()))
    if isinstance(error, LrsearchError):
        return text
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "can't allocate memory" in text:
        return f"out of memory: {text}"
    return f"{type(error).__name__}: {text}"
