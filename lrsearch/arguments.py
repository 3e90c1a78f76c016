"""What is typed behind an option, as values; every mistake is one sentence that names the option."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lrsearch.errors import LrsearchError, hide_passwords


def parse_settings(settings: list[str] | None) -> dict[str, str]:
    """``--set``: dotted keys and the YAML text of their values."""
    pairs = {}
    for setting in settings or []:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise LrsearchError(f"--set is {setting!r}, expected key=value such as retrain.epochs=8")
        pairs[key] = value
    return pairs


def parse_values(settings: list[str] | None) -> dict[str, Any]:
    """``--set`` of one compression: hyperparameters and their values."""
    from lrsearch.space import parse_value

    return {key: parse_value(text) for key, text in parse_settings(settings).items()}


def parse_budget(text: str | None) -> dict[str, float] | None:
    """``--budget``: what to keep, such as ``params=0.5`` or ``params=0.5,flops=0.6``."""
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {resource.strip(): float(fraction) for resource, _, fraction in pairs}
    except ValueError as error:
        raise LrsearchError(f"--budget is {text!r}, expected params=F or flops=F or both, with 0 < F <= 1") from error


def parse_named(text: str) -> dict[str, Any]:
    """``--model`` and ``--data``: a name, or a mapping with a name and arguments, as in a space file."""
    from lrsearch.space import parse_value

    value = parse_value(text) if text.lstrip().startswith("{") else {"name": text}
    if not isinstance(value, dict) or "name" not in value:
        raise LrsearchError(f"{text!r} has no name, expected a name or '{{name: ..., key: value}}'")
    return value


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """``--input``: the shape of one input, such as ``3,224,224``."""
    if text is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise LrsearchError(f"--input is {text!r}, expected whole numbers such as 3,224,224")
    return tuple(int(part) for part in text.split(","))


def parse_numbers(option: str, text: str) -> list[float]:
    """Numbers separated by commas, such as ``0,0.5,1``."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise LrsearchError(f"{option} is {text!r}, expected numbers such as 0,0.5,1") from error


def parse_duration(text: str | None) -> float | None:
    """``--time-budget``: seconds, from a text such as ``1h30m``."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not match or not any(match.groups()):
        raise LrsearchError(f"--time-budget is {text!r}, expected a time such as 2h, 45m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds


def packed_path(path: Path) -> str:
    """A file that travels with the working directory, as its path from there."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError as error:
        raise LrsearchError(
            f"{path} is outside the working directory, which is all that the cluster is sent"
        ) from error


def shared_folder(storage: str) -> str:
    """``--storage`` of a sweep on another machine: it must mean the same there."""
    if not Path(storage).is_absolute() and "://" not in storage:
        raise LrsearchError(
            f"--storage is {storage!r}, expected an absolute path that every node of the cluster reaches"
        )
    return storage


def without_password(option: str, uri: str | None) -> str | None:
    """An option's URI: command lines are seen by everyone on the machine, those of jobs by the whole cluster."""
    if uri is not None and hide_passwords(uri) != uri:
        raise LrsearchError(
            f"{option} holds a password, which whoever lists processes or jobs would read; give it in the "
            "environment instead (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; for a database PGPASSWORD)"
        )
    return uri
