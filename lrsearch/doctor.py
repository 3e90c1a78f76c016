"""What lrsearch needs of a machine, looked at one by one, and what to do where it is missing."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from lrsearch.errors import LrsearchError
from lrsearch.object_storage import check, shown
from lrsearch.sweep.store import DEFAULT_STORAGE, storage_folder, sweep_names
from lrsearch.version import __version__

_NEEDED = ("torch", "torchvision", "ray", "optuna", "mlflow", "tensorly", "torch-pruning", "safetensors", "pydantic")
_FOR_ONNX = ("onnx", "onnxscript", "onnxruntime")
_ROOM = 2**30
"""Bytes that a sweep's checkpoints should find free."""


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes:
        what: that was looked at.
        verdict: ``ok``; ``note`` where something works but for what ``advice`` says; ``fix`` where it does not.
        text: what was found.
        advice: what to do, empty where all is well.
    """

    what: str
    verdict: Literal["ok", "note", "fix"]
    text: str
    advice: str = ""


def examine(
    storage: str = DEFAULT_STORAGE, tracking_uri: str | None = None, address: str | None = None
) -> Iterator[Finding]:
    """Look at everything that a sweep needs, quick things first; nothing is left behind.

    Args:
        storage: folder of sweeps.
        tracking_uri: an MLflow server or database; by default the one of the storage folder.
        address: a Ray cluster; by default Ray is started on this machine for a moment.
    """
    yield _python()
    yield from _packages()
    yield _guarded("processor", "see what PyTorch says of it", _processor)
    yield _guarded("GPU", "see what PyTorch says of it", _gpu)
    yield _guarded("storage", "give another folder as --storage", lambda: _storage(storage))
    advice = "see that the server runs and --tracking-uri is its address, or leave --tracking-uri out"
    yield _guarded("MLflow", advice, lambda: _mlflow(storage, tracking_uri))
    where = f"see that a cluster runs at {address}" if address else "see that this machine lets Ray open ports"
    yield _guarded("Ray", where, lambda: _ray(address))


def _guarded(what: str, advice: str, look: Callable[[], Finding]) -> Finding:
    """What ``look`` finds, or why it could not look."""
    try:
        return look()
    except (LrsearchError, ImportError, OSError, RuntimeError) as error:
        return Finding(what, "fix", " ".join(str(error).split()), advice)


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Finding]:
    found = {name: _version(name) for name in (*_NEEDED, *_FOR_ONNX)}
    missing = [name for name in _NEEDED if found[name] is None]
    listed = ", ".join(f"{name} {found[name]}" for name in _NEEDED if found[name] is not None)
    if missing:
        yield Finding("packages", "fix", f"{', '.join(missing)} missing", f"pip install {' '.join(missing)}")
    yield Finding("packages", "ok", f"lrsearch {__version__}, {listed}")
    without = [name for name in _FOR_ONNX if found[name] is None]
    if without:
        advice = "for `export --format onnx` only: pip install 'lrsearch[onnx]'"
        yield Finding("ONNX", "note", f"{', '.join(without)} missing", advice)
    else:
        yield Finding("ONNX", "ok", ", ".join(f"{name} {found[name]}" for name in _FOR_ONNX))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> Finding:
    from lrsearch.measure.device import device_kind

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    text = f"{cores} cores of {device_kind('cpu')}, load {load:.1f}"
    if load > max(1, cores / 2):
        return Finding("processor", "note", text, "other programs are busy: throughput measured now is less certain")
    return Finding("processor", "ok", text)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("GPU", "ok", f"{', '.join(names)}, CUDA {torch.version.cuda}")
    if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
        advice = "install the PyTorch build for this driver (https://pytorch.org/get-started/locally)"
        return Finding("GPU", "fix", "this machine has one that PyTorch cannot use", advice)
    return Finding("GPU", "ok", "none; resources.gpus must be 0, as it is by default")


def _storage(storage: str) -> Finding:
    folder = storage_folder(storage)
    check(folder)
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=nearest).close()  # permissions alone do not tell, above all not root's
    except OSError as error:
        raise LrsearchError(f"{folder} cannot be written: {error.strerror}") from error
    free = shutil.disk_usage(nearest).free
    sweeps = len(sweep_names(folder))
    text = f"{shown(folder)}, {sweeps} {'sweep' if sweeps == 1 else 'sweeps'}, {free / 2**30:,.1f} GiB free"
    if free < _ROOM:
        return Finding("storage", "note", text, "make room, or give another folder as --storage")
    return Finding("storage", "ok", text)


def _mlflow(storage: str, uri: str | None) -> Finding:
    from lrsearch.tracking.store import connect, tracking_uri

    folder = storage_folder(storage)
    where = tracking_uri(uri, folder)
    if uri is None and not Path(where.removeprefix("sqlite:///")).exists():
        return Finding("MLflow", "ok", f"the first sweep will make {where}")
    connect(uri, folder)
    return Finding("MLflow", "ok", f"{where} answers")


def _ray(address: str | None) -> Finding:
    from lrsearch.sweep.cluster import connected, machines

    with connected(address):
        found = machines()
    cpus, gpus = (sum(machine.get(kind, 0) for machine in found) for kind in ("CPU", "GPU"))
    text = f"{len(found)} machines at {address}" if address else "starts on this machine"
    return Finding("Ray", "ok", f"{text}: {cpus:g} CPUs, {gpus:g} GPUs")
