"""What a shell offers for an argument that is being typed."""

from __future__ import annotations

import typer

from lrsearch.errors import LrsearchError
from lrsearch.sweep.store import DEFAULT_STORAGE, storage_folder, sweep_names


def complete_sweep(context: typer.Context, incomplete: str) -> list[str]:
    """The sweeps of the storage folder."""
    try:
        names = sweep_names(storage_folder(context.params.get("storage") or DEFAULT_STORAGE))
    except LrsearchError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """The methods that are installed."""
    from lrsearch.methods import method_names

    return [name for name in method_names() if name.startswith(incomplete)]
