"""From a dense network to a compressed and retrained one: the compress-retrain pipeline of ALDS supplement B.5."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.compression import compress_steps, make_task
from lrsearch.data import Splits
from lrsearch.data.seeds import derived_seed
from lrsearch.errors import LrsearchError, TrialFailedError
from lrsearch.factorize import compare_layers, copy_with, materialize
from lrsearch.files import read_json, write_json
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.latency import LatencyTable
from lrsearch.methods import load_method, parse_hyperparameters
from lrsearch.methods.base import Compressed, Progress, Retrains, Task
from lrsearch.object_storage import discard
from lrsearch.persistence import load_compression, read_weights, save_compressed, save_compression, save_weights
from lrsearch.record import LAYERS, Report
from lrsearch.shared_tensors import SharedTensors
from lrsearch.training import Epoch, Retraining, RetrainingConfig, read_history, train
from lrsearch.training.data_parallel import place
from lrsearch.training.distillation import distil_layers, distil_logits
from lrsearch.trial_spec import TrialSpec

CHECKPOINT = "checkpoint.pt"
COMPRESSING = "compressing.pt"
ROUNDS = "rounds"
ROUND = "round.json"
PROJECTED = "projected.safetensors"
SHARED = "shared"


@dataclass(frozen=True)
class Pipeline:
    """What a trial does to the network; each part goes on from what its folder holds.

    Attributes:
        spec: the trial, or one round of it.
        folder: of the trial; rounds before the last have theirs in it.
        splits: the data.
        gate: held by every step.
        number: of the round, from 1; None for the last.
    """

    spec: TrialSpec
    folder: Path
    splits: Splits
    gate: DeviceGate
    number: int | None = None

    @property
    def config(self) -> RetrainingConfig:
        """How the network is retrained in each round, and how many rounds there are."""
        return RetrainingConfig.model_validate(self.spec.retrain)

    def earlier_rounds(self, dense: nn.Module) -> Generator[Report, None, list[dict[str, Any]]]:
        """Compress, retrain and multiply the factors out again, in every round but the last.

        Round i of n keeps the fraction b^(i/n) of the dense network, b being the budget, so that each round
        removes the same part of what is left. Afterwards ``dense`` holds what the last round starts from.

        Returns:
            What is known of each round: ``seconds`` of compressing, and its ``epochs``.

        Raises:
            LrsearchError: the method has no budget to tighten.
            TrialFailedError: training diverged, or a layer was replaced by something that is not linear.
        """
        rounds = []
        for number in range(1, self.config.rounds):
            part = self._round(number)
            if not (part.folder / ROUND).exists():
                yield from part._run(dense)
            read_weights(dense, part.folder / PROJECTED)
            rounds.append(read_json(part.folder / ROUND, "delete it to repeat the round") or {})
        return rounds

    def compressed(self, dense: nn.Module) -> Generator[Report, None, Compressed]:
        """The compressed network: from the folder if an earlier run got that far, else made now."""
        finished = load_compression(self.folder)
        if finished is not None:
            return replace(finished, model=finished.model.to(self.spec.workplace.device))
        spec, checkpoint = self.spec, self.folder / COMPRESSING
        architecture = {key: value for key, value in spec.model.items() if key != "weights"}
        task = make_task(
            dense,
            self.splits,
            architecture=architecture,
            seed=spec.seed,
            checkpoint=checkpoint,
            latency=LatencyTable(spec.workplace.deployment, self.gate, Path(spec.cache_folder)),
            shared=self._shared(),
        )
        statistics = self._statistics(dense, task)
        steps = compress_steps(dense, spec.method, spec.hyperparameters, task, statistics, self.gate)
        compressed = yield from _reports(steps)
        with self.gate.work():
            layers = compare_layers(dense, compressed.model, compressed.recipe.layers)
        write_json(self.folder / LAYERS, layers)
        save_compression(compressed, self.folder)
        discard(checkpoint)
        return compressed

    def retraining(self, compressed: Compressed, dense: nn.Module) -> Retraining | None:
        """What the method changes about its network's training; None where it has no idea of its own."""
        method = load_method(self.spec.method)
        if not isinstance(method, Retrains):
            return None
        return method.retraining(compressed, dense, parse_hyperparameters(self.spec.method, self.spec.hyperparameters))

    def retrain(self, compressed: Compressed, dense: nn.Module) -> Iterator[Report]:
        """Train the compressed network and write it to the folder; epochs are counted over all rounds."""
        config = self.config
        if config.epochs == 0:
            return
        for epoch in train(
            compressed.model,
            self.splits,
            config,
            device=torch.device(self.spec.workplace.device),
            seed=self.spec.seed,
            gate=self.gate,
            checkpoint=self.folder / CHECKPOINT,
            retraining=self._towards(compressed, dense, self.retraining(compressed, dense)),
        ):
            metrics = self._row(epoch)
            yield Report("retrain", metrics["epoch"], metrics.pop("epochs"), metrics)
        if place().leads:
            save_compressed(compressed.model.eval(), compressed.recipe, self.folder)

    def _towards(self, compressed: Compressed, dense: nn.Module, retraining: Retraining | None) -> Retraining | None:
        """A training that the dense network teaches, where the space says so."""
        distil, taught = self.config.distil, retraining
        if distil is not None and distil.weight:
            taught = (taught or Retraining()).adding(distil_logits(dense, distil.weight, distil.temperature))
        if distil is not None and distil.layers:
            names = _decomposed(compressed, dense)
            taught = (taught or Retraining()).adding(distil_layers(compressed.model, dense, names, distil.layers))
        return taught

    def epochs(self) -> list[dict[str, Any]]:
        """The epochs of this round that are finished, as plain data."""
        if self.config.epochs == 0:
            return []
        return [self._row(epoch) for epoch in read_history(self.folder / CHECKPOINT)]

    def _run(self, dense: nn.Module) -> Iterator[Report]:
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        compressed = yield from self.compressed(dense)
        seconds = time.monotonic() - started
        yield from self.retrain(compressed, dense)
        save_weights(_projected(compressed, dense), self.folder / PROJECTED)
        write_json(self.folder / ROUND, {"seconds": seconds, "epochs": self.epochs()})
        discard(self.folder / CHECKPOINT)

    def _round(self, number: int) -> Pipeline:
        spec = self.spec
        budget = parse_hyperparameters(spec.method, spec.hyperparameters).budget
        if budget is None:
            raise LrsearchError(f"retrain.rounds is {self.config.rounds}, but {spec.method} has no budget to tighten")
        share = number / self.config.rounds
        looser = {resource: fraction**share for resource, fraction in budget.model_dump(exclude_none=True).items()}
        hyperparameters = spec.hyperparameters | {"budget": looser}
        part = replace(spec, hyperparameters=hyperparameters, seed=derived_seed(spec.seed, number))
        return replace(self, spec=part, folder=self.folder / ROUNDS / str(number), number=number)

    def _row(self, epoch: Epoch) -> dict[str, Any]:
        """An epoch as plain data, counted over all rounds."""
        each, rounds = self.config.epochs, self.config.rounds
        before = ((self.number or rounds) - 1) * each
        return replace(epoch, epoch=before + epoch.epoch, epochs=rounds * each).row()

    def _statistics(self, dense: nn.Module, task: Task) -> dict[str, Tensor]:
        """What the method's trials share, on the CPU."""
        method = load_method(self.spec.method)

        def compute() -> dict[str, Tensor]:
            with self.gate.work():
                return method.statistics(dense, task)

        return task.shared.get(f"statistics-{self.spec.method}", compute)

    def _shared(self) -> SharedTensors:
        """What trials share of the network; later rounds start from one of their own and share nothing."""
        if (self.number or self.config.rounds) > 1:
            return SharedTensors()
        return _shared_tensors(Path(self.spec.dense_folder) / SHARED)


def _reports(steps: Generator[Progress, None, Compressed]) -> Generator[Report, None, Compressed]:
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            compressed: Compressed = stop.value
            return compressed
        yield Report("compress", progress.done, progress.total)


@lru_cache(maxsize=1)
def _shared_tensors(folder: Path) -> SharedTensors:
    """What trials share, kept open between those of one worker."""
    return SharedTensors(folder)


def _decomposed(compressed: Compressed, dense: nn.Module) -> list[str]:
    """The layers that stand for one dense layer each, which they can be compared with."""
    names = [name for name, factorization in compressed.recipe.layers.items() if factorization.kind != "dense"]
    for name in names:
        try:
            materialize(compressed.model.get_submodule(name), dense.get_submodule(name))
        except (TypeError, ValueError) as error:
            raise TrialFailedError(
                f"retrain.distil.layers cannot compare layer {name!r} with dense: {error}"
            ) from error
    return names


def _projected(compressed: Compressed, dense: nn.Module) -> nn.Module:
    """The dense network with the weights of the compressed one, its factors multiplied out."""
    layers = {}
    for name, factorization in compressed.recipe.layers.items():
        if factorization.kind == "dense":
            continue
        if factorization.kind == "pruned":
            raise TrialFailedError(f"{name!r} was pruned: between retrain.rounds only decomposed layers become dense")
        try:
            layers[name] = materialize(compressed.model.get_submodule(name), dense.get_submodule(name))
        except (TypeError, ValueError) as error:
            raise TrialFailedError(f"layer {name!r} cannot be turned back into a dense one: {error}") from error
    return copy_with(compressed.model, layers)
