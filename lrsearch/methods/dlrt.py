"""Dynamical low-rank training: ranks are found while the network trains on the manifold of low-rank weights.

Source: Schotthöfer, Zangrando, Kusch, Ceruti, Tudisco, "Low-rank lottery tickets: finding efficient low-rank neural
networks via matrix differential equations" (NeurIPS 2022), Algorithm 1, with S learning in the bases of the same
pass; ``parallel``: arXiv 2410.18720. Adaptive epochs, then epochs at fixed ranks, then two plain layers for each.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import find_layers
from lrsearch.methods import base
from lrsearch.methods.base import Compressed, Progress, Task
from lrsearch.methods.low_rank_training.hyperparameters import DlrtHyperparameters
from lrsearch.methods.low_rank_training.network import (
    deployed,
    initialised_anew,
    make_dense,
    spectra,
    spectrum_of,
    training_params,
    with_low_rank,
)
from lrsearch.methods.low_rank_training.ranks import ByBudget, ByTau, permitted_ranks
from lrsearch.methods.low_rank_training.speed import step_speedup
from lrsearch.methods.one_shot import left_out
from lrsearch.methods.one_shot.apply import finite_weight
from lrsearch.methods.one_shot.candidates import CHOSEN, NOT_SMALLER, svd
from lrsearch.methods.one_shot.cap import Caps, make_caps
from lrsearch.recipe import Factorization, Recipe
from lrsearch.training.dlrt import LowRankLayer, LowRankTraining, Phase, SavedTraining, truncate


@dataclass(frozen=True)
class _Start:
    """What training starts from.

    ``dense`` gives the reason of each layer that stays dense from the start, ``choice`` the ranks of the others.
    """

    network: nn.Module
    layers: dict[str, LowRankLayer]
    dense: dict[str, str]
    choice: ByTau | ByBudget
    caps: Caps | None


class Dlrt(base.Method):
    """The method ``dlrt``.

    Metrics: ``train_cr_p``, the reduction in percent of what a training step holds of the weights, 2 r (n + m) + 4 r^2
    numbers (the augmented factors) in place of n m, at the ranks the adaptive epochs ended with; ``train_speedup``,
    time of a dense training step over a low-rank one at these ranks. History: ``ranks`` of each layer, ``tau``,
    ``loss`` and ``train_accuracy``, one entry per epoch (``tau``: adaptive epochs only).
    """

    Hyperparameters: ClassVar[type[base.Hyperparameters]] = DlrtHyperparameters

    def compress(
        self, model: nn.Module, task: Task, hyperparameters: DlrtHyperparameters, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Train a copy at low rank, yielding after every step; with ``task.checkpoint`` it goes on where it was killed.

        Raises:
            BudgetUnreachableError: the budget is smaller than what the smallest ranks everywhere would keep.
            LrsearchError: there is no data to train on, or a layer's weight is not finite.
            TrialFailedError: training diverged.
        """
        if hyperparameters.epochs and task.splits is None:
            raise LrsearchError("dlrt trains while it compresses, expected data with a training split, got none")
        seed = int(torch.randint(2**31, (), generator=task.generator))
        start = _start(model, task, hyperparameters, seed)
        metrics: dict[str, float] = {}
        history: dict[str, Any] = {}
        steps = 0
        if start.layers and hyperparameters.epochs:
            run = _Run(model, task, hyperparameters, start, seed)
            steps = run.steps
            for done in run.run():
                yield Progress(done, steps + 1)
            metrics, history = run.metrics(), run.history()
        else:
            _settle(start, model)
        network = deployed(start.network, model, start.layers)
        if start.caps is not None:
            start.caps.verify(network, task)
        yield Progress(steps + 1, steps + 1)
        recipe = Recipe(architecture=task.architecture, method="dlrt", layers=_factorizations(model, start))
        return Compressed(network.eval(), recipe, metrics, history)


def _start(model: nn.Module, task: Task, hyperparameters: DlrtHyperparameters, seed: int) -> _Start:
    """Choose what becomes low-rank, and at which ranks."""
    shapes, dense = find_layers(model, task.example_input)
    if not hyperparameters.classifier:
        dense |= left_out.classifier(model, shapes)
    shapes = {name: shape for name, shape in shapes.items() if name not in dense}
    source = initialised_anew(model, seed) if hyperparameters.start == "scratch" else model
    found = {name: permitted_ranks(shape, hyperparameters) for name, shape in shapes.items()}
    permitted = {name: ranks for name, ranks in found.items() if ranks is not None}
    dense |= {name: NOT_SMALLER for name in shapes if name not in permitted}
    for name in permitted:
        finite_weight(source, name)
    caps: Caps | None = None
    choice: ByTau | ByBudget = ByTau(permitted, hyperparameters)
    if hyperparameters.budget is not None:
        caps = make_caps(model, shapes, hyperparameters.budget, task)
        choice = ByBudget(shapes, permitted, caps)
    chosen = choice.factorizations({name: spectrum_of(source, name) for name in permitted}, 0.0)
    ranks = {name: factorization.ranks[0] for name, factorization in chosen.items() if factorization.ranks}
    if hyperparameters.initial_rank is not None:
        ranks = {name: permitted[name].at_least(hyperparameters.initial_rank) for name in ranks}
    dense |= {name: CHOSEN for name in chosen if name not in ranks}
    network, layers = with_low_rank(source if ranks else model, ranks)
    return _Start(network, layers, dense, choice, caps)


class _Run:
    """Both phases of one training."""

    def __init__(
        self, model: nn.Module, task: Task, hyperparameters: DlrtHyperparameters, start: _Start, seed: int
    ) -> None:
        assert task.splits is not None  # noqa: S101 - asked for before
        self._model, self._start, self._hyperparameters = model, start, hyperparameters
        self._latency = task.latency
        self._training = LowRankTraining(
            start.network,
            start.layers,
            task.splits,
            hyperparameters.training(),
            task.device,
            seed,
            clip=hyperparameters.clip,
            precision=getattr(torch, hyperparameters.precision),
            checkpoint=task.checkpoint,
            origin={"seed": seed, **hyperparameters.model_dump(mode="json")},
        )
        self.steps = self._training.steps_per_epoch * hyperparameters.epochs

    def run(self) -> Iterator[int]:
        """Train, yielding the number of steps done; afterwards layers are at their final ranks, or dense."""
        training = self._training
        phases: Sequence[Phase] = self._phases()
        path = training.checkpoint
        saved = SavedTraining.load(path, training.origin) if path is not None and path.exists() else None
        done = saved.epoch * training.steps_per_epoch if saved else 0
        if saved is not None and saved.epoch > phases[0].epochs:
            lost = [name for name in self._start.layers if f"{name}.S" not in saved.model]
            make_dense(self._start.network, self._model, self._start.layers, lost)
            self._start.dense.update(dict.fromkeys(lost, CHOSEN))
            phases = phases[1:]
        for phase in phases:
            for _ in training.run(phase, saved):
                done += 1
                yield done
            saved = None
            if phase.before == 0:
                _settle(self._start, self._model)

    def metrics(self) -> dict[str, float]:
        """See ``Dlrt``."""
        training, layers = self._training, self._start.layers
        whole = sum(parameter.numel() for parameter in self._model.parameters())
        inputs, _ = next(iter(training.splits.batches("train", training.config.batch_size)))
        network, integrator = self._start.network, self._hyperparameters.integrator
        with self._latency.alone():
            speedup = step_speedup(network, self._model, list(layers), integrator, inputs.to(training.device))
        return {
            "train_cr_p": 100 * (1 - training_params(self._model, layers) / whole),
            "train_speedup": speedup,
        }

    def history(self) -> dict[str, Any]:
        """See ``Dlrt``."""
        return asdict(self._training.history)

    def _phases(self) -> tuple[Phase, Phase]:
        given, choice = self._hyperparameters, self._start.choice
        adaptive = Phase(
            0, given.adaptive_epochs, given.integrator, choice.at, choice.tau, given.warmup_steps, given.truncate_every
        )
        return adaptive, Phase(given.adaptive_epochs, given.fine_tuning_epochs, given.fine_tuning)


def _settle(start: _Start, model: nn.Module) -> None:
    """Give every layer its final rank, or make it dense again where the budget has room for that."""
    if not isinstance(start.choice, ByBudget):
        return
    chosen = start.choice.factorizations(spectra(start.layers), 1.0)
    roomy = [name for name, factorization in chosen.items() if not factorization.ranks]
    make_dense(start.network, model, start.layers, roomy)
    start.dense.update(dict.fromkeys(roomy, CHOSEN))
    truncate(start.layers, lambda _: {name: chosen[name].ranks[0] for name in start.layers}, {})


def _factorizations(model: nn.Module, start: _Start) -> dict[str, Factorization]:
    """One for each layer, in the order of the network."""
    found = {name: Factorization(kind="dense", reason=reason) for name, reason in start.dense.items()}
    found |= {name: svd(0, 1, layer.rank) for name, layer in start.layers.items()}
    return {name: found[name] for name, _ in model.named_modules() if name in found}


METHOD: base.Method = Dlrt()
