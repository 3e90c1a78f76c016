"""The retraining of one trial by several processes, one for each of its GPUs."""

from __future__ import annotations

import copy
import multiprocessing
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from lrsearch.data import load_data
from lrsearch.measure.gate import DeviceGate
from lrsearch.methods.base import Compressed
from lrsearch.persistence import load_compression
from lrsearch.pipeline import Pipeline
from lrsearch.record import Report
from lrsearch.training.data_parallel import Place, together
from lrsearch.trial_spec import TrialSpec

_RENDEZVOUS = "rendezvous"


def retrain_jointly(pipeline: Pipeline, compressed: Compressed, dense: nn.Module) -> Iterator[Report]:
    """``Pipeline.retrain`` with helpers, as many as ``Workplace.processes`` says; this process leads.

    A helper reads the compressed network from the trial's folder and trains in step with the leader; it writes nothing,
    and ends with the training, however that ends.
    """
    if pipeline.spec.workplace.processes == 1 or pipeline.config.epochs == 0:
        yield from pipeline.retrain(compressed, dense)
        return
    device = torch.device(pipeline.spec.workplace.device)
    with (
        tempfile.TemporaryDirectory() as folder,
        _helpers(pipeline, dense, Path(folder)) as place,
        together(place, device, Path(folder) / _RENDEZVOUS),
    ):
        yield from pipeline.retrain(compressed, dense)


@contextmanager
def _helpers(pipeline: Pipeline, dense: nn.Module, folder: Path) -> Iterator[Place]:
    size = pipeline.spec.workplace.processes
    context = multiprocessing.get_context("spawn")
    teacher = copy.deepcopy(dense).cpu()
    helpers = [
        context.Process(
            target=_help, args=(pipeline.spec, pipeline.folder, teacher, Place(rank, size), folder), daemon=True
        )
        for rank in range(1, size)
    ]
    try:
        for helper in helpers:
            helper.start()
        yield Place(0, size)
    finally:
        for helper in helpers:
            if helper.pid is not None:
                helper.kill()
                helper.join()


def _help(spec: TrialSpec, trial: Path, dense: nn.Module, place: Place, folder: Path) -> None:
    workplace = spec.workplace
    torch.set_num_threads(spec.threads or workplace.threads)
    device = torch.device(workplace.device, place.rank) if workplace.device == "cuda" else torch.device("cpu")
    compressed = load_compression(trial)
    if compressed is None:
        raise FileNotFoundError(f"{trial} holds no compressed network")
    # A gate of its own: the leader holds the real one during every step, and would wait for this process in it.
    gate = DeviceGate(device, folder / f"gate{place.rank}")
    here = replace(spec, workplace=replace(workplace, device=str(device)))
    with together(place, device, folder / _RENDEZVOUS):
        pipeline = Pipeline(here, trial, load_data(spec.data).on(device), gate)
        for _ in pipeline.retrain(replace(compressed, model=compressed.model.to(device)), dense.to(device)):
            pass
