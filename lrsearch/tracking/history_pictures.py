"""Pictures of how a method came to its choices, drawn from what a trial keeps of that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lrsearch.files import read_json, replacing
from lrsearch.tracking.rank_picture import write_ranks
from lrsearch.tracking.rank_search_picture import write_rank_search
from lrsearch.tracking.store import first_line

_log = logging.getLogger(__name__)
_PICTURES: dict[str, tuple[str, Callable[[Path, Mapping[str, Any]], None]]] = {
    "alpha": ("rank_search.png", write_rank_search),
    "tau": ("ranks.png", write_ranks),
}
"""Key of a history -> the picture's name, and who draws it."""


def draw_history(folder: Path) -> list[Path]:
    """Draw what the ``history.json`` of a trial's folder has pictures for, beside it; returns their paths."""
    drawn = []
    try:
        history = read_json(folder / "history.json", "it is left out of the pictures") or {}
        for key, (name, write) in _PICTURES.items():
            if not history.get(key):
                continue
            if not (folder / name).exists():
                with replacing(folder / name) as temporary:
                    write(temporary, history)
            drawn.append(folder / name)
    except Exception as error:  # a picture is not worth the numbers that come after it
        _log.warning("the history of %s cannot be drawn: %s", folder, first_line(error))
    return drawn
