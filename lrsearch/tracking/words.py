"""Entries of a space file in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def named(entry: object) -> str:
    """The name of a model or data entry."""
    return str(entry.get("name", "?")) if isinstance(entry, Mapping) else str(entry)


def join_words(words: Sequence[str], last: str) -> str:
    """Words with commas, and ``last`` before the last: ``a, b and c``."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
