"""What a trial did to each layer, as text for people."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lrsearch.errors import LrsearchError
from lrsearch.files import read_json
from lrsearch.record import LAYERS

_log = logging.getLogger(__name__)
Entries = Sequence[Mapping[str, Any]]
"""What ``factorize.compare_layers`` gave."""


@lru_cache(maxsize=4096)
def read_layers(folder: Path) -> Entries:
    """The layers of a finished trial, which never change; none where the trial left no such file, or a damaged one."""
    try:
        content: Any = read_json(folder / LAYERS, "it is left out of the pages")
    except LrsearchError as error:
        _log.warning("%s", error)
        return ()
    return content or ()


def rank_text(entry: Mapping[str, Any]) -> str:
    """A layer's ranks: ``3×14`` for three subspaces of rank 14 each, ``12·10`` for the pair of a Tucker-2."""
    ranks = entry["ranks"]
    if entry["kind"] == "dense":
        return "dense"
    if entry["kind"] == "pruned":
        return "→".join(map(str, ranks))
    if len(ranks) > 1 and len(set(ranks)) == 1 and entry["kind"] in ("svd", "messi"):
        return f"{len(ranks)}×{ranks[0]}"
    return "·".join(map(str, ranks))


def rank_summary(entries: Entries) -> str:
    """The ranks of a whole network in a few words."""
    replaced = [entry for entry in entries if entry["kind"] != "dense"]
    if not replaced:
        return ""
    ranks = [rank for entry in replaced for rank in entry["ranks"]]
    word = "channels" if replaced[0]["kind"] == "pruned" else "ranks"
    return f"{word} {min(ranks)}–{max(ranks)} in {len(replaced)} of {len(entries)} layers"


def kept(entry: Mapping[str, Any]) -> float:
    """The fraction of a layer's parameters that is left."""
    return float(entry["params"] / entry["dense_params"]) if entry["dense_params"] else 1.0
