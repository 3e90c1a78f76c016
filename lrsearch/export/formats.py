"""Write a network in a form that runs elsewhere, and run it there before anyone else does."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.export.plain_module import SOURCE, write_plain_module
from lrsearch.factorize.folding import fold_batch_norm
from lrsearch.files import replacing

ExportFormat = Literal["torch", "exported-program", "onnx"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
TOLERANCE = 1e-4
"""Largest difference of an output, relative to the largest output."""
_BATCHES = (2, 5)
_Run = Callable[[Tensor], Tensor]


def export_network(
    model: nn.Module, example: Tensor, out: Path, format: ExportFormat, title: str = "A compressed network"
) -> float:
    """Write a network, batch norm folded, for batches of any size, and compare what was written with it.

    Args:
        model: the network, on the CPU; it stays untouched.
        example: (1, ...) one input.
        out: a folder for ``torch``, a file for ``exported-program`` and ``onnx``.
        format: ``torch`` is ``model.py`` and ``weights.safetensors``, which PyTorch alone loads;
            ``exported-program`` is read by ``torch.export.load``, ``onnx`` by any ONNX runtime.
        title: says in the written file what it is.

    Returns:
        The largest difference between outputs of the network and of what was written, relative to the largest.

    Raises:
        LrsearchError: the network cannot be written in that format, a package is missing, or outputs differ.
    """
    folded = fold_batch_norm(model).cpu()
    inputs = [torch.randn(size, *example.shape[1:]) for size in _BATCHES]
    with without_chatter(), torch.no_grad():
        run = _WRITERS[format](folded, inputs[0], out, title)
        difference = max(_difference(run(batch), model(batch)) for batch in inputs)
    if not difference <= TOLERANCE:
        raise LrsearchError(f"the exported outputs differ by {difference:.2g} of the largest, expected {TOLERANCE:g}")
    return difference


def _difference(written: Tensor, expected: Tensor) -> float:
    return float((written - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _torch(folded: Any, _: Tensor, out: Path, title: str) -> _Run:
    out.mkdir(parents=True, exist_ok=True)
    write_plain_module(folded, out, title)
    spec = importlib.util.spec_from_file_location("lrsearch_exported", out / SOURCE)
    assert spec is not None and spec.loader is not None  # noqa: S101 - it was just written
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run: _Run = module.load()
    return run


def _program(folded: nn.Module, inputs: Tensor) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(folded, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise LrsearchError(f"the network cannot be exported for batches of any size: {reason}") from error


def _exported_program(folded: nn.Module, inputs: Tensor, out: Path, _: str) -> _Run:
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        named = temporary.with_suffix(".pt2")
        torch.export.save(_program(folded, inputs), named)
        named.replace(temporary)
    run: _Run = torch.export.load(out).module()
    return run


def _onnx(folded: nn.Module, inputs: Tensor, out: Path, _: str) -> _Run:
    if any(importlib.util.find_spec(package) is None for package in ("onnxscript", "onnxruntime")):
        raise LrsearchError("format onnx needs packages that come with: pip install 'lrsearch[onnx]'")
    import onnxruntime

    out.parent.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(
        _program(folded, inputs), dynamo=True, input_names=["images"], output_names=["outputs"], verbose=False
    )
    assert program is not None  # noqa: S101 - only the older exporter returns nothing
    with replacing(out) as temporary:
        program.save(str(temporary))
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    return lambda batch: torch.from_numpy(session.run(None, {name: batch.numpy()})[0])


_WRITERS: dict[ExportFormat, Callable[[Any, Tensor, Path, str], _Run]] = {
    "torch": _torch,
    "exported-program": _exported_program,
    "onnx": _onnx,
}


@contextmanager
def without_chatter() -> Iterator[None]:
    """Exporters print much that a user can do nothing about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
