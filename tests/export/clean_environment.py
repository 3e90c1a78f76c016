"""Virtual environments in which a few packages are installed, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make_environment(folder: Path, *packages: str) -> Path:
    """Make a virtual environment of these packages, and what they require, as they are installed here.

    Returns:
        Its Python, to be run with ``-I``.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for installed in closure(*packages).values():
        for file in installed.files or ():
            if ".." not in file.parts:  # not programs
                _link(Path(str(installed.locate_file(""))), site, file.parts)
    return folder / "bin" / "python"


def closure(*packages: str) -> dict[str, Distribution]:
    """The distributions that are needed for some, themselves included."""
    found: dict[str, Distribution] = {}
    seen, open_ends = set(), [Requirement(package) for package in packages]
    while open_ends:
        wanted = open_ends.pop()
        name = canonicalize_name(wanted.name)
        if (name, *sorted(wanted.extras)) in seen:
            continue
        seen.add((name, *sorted(wanted.extras)))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # works without, or else the test shows it
            continue
        open_ends += _requirements(found[name], wanted.extras)
    return found


def _requirements(installed: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for line in installed.requires or ():
        required = Requirement(line)
        if required.marker is None or any(required.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield required


def _link(here: Path, there: Path, parts: tuple[str, ...]) -> None:
    """Link a file, or the package it is in; folders without ``__init__.py`` may belong to several distributions."""
    for depth in range(1, len(parts) + 1):
        source, target = here.joinpath(*parts[:depth]), there.joinpath(*parts[:depth])
        if depth == len(parts) or (source / "__init__.py").exists():
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
            return
