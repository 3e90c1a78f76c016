"""The search over all stages, and what it keeps on disk so that killing it loses nothing."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.data import Splits
from lrsearch.data.seeds import derived_seed
from lrsearch.errors import LrsearchError
from lrsearch.factorize import LayerShape
from lrsearch.files import replacing
from lrsearch.methods.base import Progress, Task
from lrsearch.methods.one_shot.apply import diverging, finite_weight
from lrsearch.methods.rene_search.candidate_weights import candidate_weights
from lrsearch.methods.rene_search.grid import first_grid, is_at_end, narrowed
from lrsearch.methods.rene_search.stage import Choice, Settings, Stage

_SECONDS_BETWEEN_CHECKPOINTS = 10.0
_STEERING = 0.05
"""Power of expected over target cost by which the pressure is multiplied after every step."""
_PRESSURES = (1e-3, 1e3)


@dataclass(frozen=True)
class Plan:
    """How long the search is, and what on.

    Attributes:
        settings: of the training.
        sizes: the step of each stage.
        warm_up: steps on the factors alone, at the start of a stage.
        steps: alternating steps of a stage.
        batch_size: of the cross-entropy that the probabilities are trained on.
        data: None where they are trained on the decomposition loss.
        seed: of the batches.
        steered: whether the expected cost is to meet its target, which is then 1.
    """

    settings: Settings
    sizes: list[int]
    warm_up: int
    steps: int
    batch_size: int
    data: Splits | None
    seed: int
    steered: bool

    @property
    def stage_length(self) -> int:
        """Training steps of a stage."""
        return self.warm_up + self.steps

    @property
    def passes(self) -> int:
        """Stages at most: one of the first step, two of each finer one."""
        return 2 * len(self.sizes) - 1


@dataclass(frozen=True)
class Layer:
    """A layer that is searched.

    Attributes:
        shape: of the layer.
        costs: (ranks, resources) of its ranks 1, 2, ..., as fractions of what all layers may cost together; the last
            is the dense layer.
    """

    shape: LayerShape
    costs: Tensor


@dataclass
class Found:
    """What the search knows after its finished stages.

    Attributes:
        grids: layer -> candidates of the next stage.
        ranks: layer -> the rank chosen at each step.
        alpha: for each step: layer -> rank -> its probability at the end.
    """

    grids: dict[str, list[int]]
    ranks: dict[str, list[int]] = field(default_factory=dict)
    alpha: list[dict[str, dict[str, float]]] = field(default_factory=list)


def search(model: nn.Module, layers: Mapping[str, Layer], plan: Plan, task: Task) -> Generator[Progress, None, Found]:
    """Choose a rank for each layer, yielding after every step; ``total`` of the progress is of the search alone.

    Raises:
        TrialFailedError: a loss is not finite, or a CP decomposition diverges.
        LrsearchError: a layer's weight is not finite, or the checkpoint is of another search.
    """
    found = Found({name: first_grid(plan.sizes[0], len(layer.costs)) for name, layer in layers.items()})
    keeper = _Keeper(task.checkpoint, plan, found)
    index, first_step, state = keeper.load()
    length = len(layers) + plan.stage_length
    while index < plan.passes:
        done = index * length
        choices = {}
        for name, layer in layers.items():
            choices[name] = _choice(model, name, layer, plan, found.grids[name])
            done += 1
            yield Progress(done, plan.passes * length)
        stage = Stage(model, choices, plan.settings)
        if state is not None:
            stage.restore(state)
        batches = _batches(plan, index * plan.steps + max(0, first_step - plan.warm_up))
        for step in range(first_step, plan.stage_length):
            _step(stage, plan, step, batches, task.device)
            keeper.save(index, step + 1, stage)
            yield Progress(done + step + 1, plan.passes * length)
        index = _finish(found, stage, layers, plan, index)
        first_step, state = 0, None
    return found


def _step(
    stage: Stage, plan: Plan, step: int, batches: Iterator[tuple[Tensor, Tensor]] | None, device: torch.device
) -> None:
    stage.fit()
    if step < plan.warm_up:
        return
    batch = None
    if batches is not None:
        inputs, targets = next(batches)
        batch = inputs.to(device), targets.to(device)
    stage.choose(batch)
    if plan.steered:
        least, most = _PRESSURES
        stage.pressure = min(max(stage.pressure * stage.expected_cost() ** _STEERING, least), most)


def _choice(model: nn.Module, name: str, layer: Layer, plan: Plan, grid: list[int]) -> Choice:
    weight = finite_weight(model, name).detach()
    with diverging(f"layer {name!r}, candidates of rank {grid[0]} to {grid[-1]}"):
        candidates = candidate_weights(weight, layer.shape, plan.settings.decomposition, grid, len(layer.costs))
    costs = layer.costs[torch.tensor(grid) - 1].to(weight)
    return Choice(candidates, len(layer.costs), costs)


def _finish(found: Found, stage: Stage, layers: Mapping[str, Layer], plan: Plan, index: int) -> int:
    """Write down what a stage ended with and set the grids of the next, whose index is returned.

    A choice at the end of its grid means that the best rank may lie beyond: the loss falls so much towards the planted
    rank of a layer that the next higher candidate wins, however far it is. The first time, the stage is then repeated
    around the choices.
    """
    resolution, again = divmod(index + 1, 2)
    chosen = stage.chosen(steered=plan.steered)
    del found.alpha[resolution:]
    found.alpha.append(
        {
            name: dict(zip(map(str, found.grids[name]), p.tolist(), strict=True))
            for name, p in stage.probabilities().items()
        }
    )
    for name, rank in chosen.items():
        found.ranks[name] = [*found.ranks.get(name, [])[:resolution], rank]
    caps = {name: len(layer.costs) for name, layer in layers.items()}
    repeated = not again and any(is_at_end(chosen[n], found.grids[n], caps[n]) for n in layers)
    finer = resolution if repeated else resolution + 1
    if finer < len(plan.sizes):
        coarse, fine = plan.sizes[finer - 1 : finer + 1]
        found.grids = {name: narrowed(rank, coarse, fine, caps[name]) for name, rank in chosen.items()}
    return index + 1 if repeated else 2 * finer - 1


def _batches(plan: Plan, start: int) -> Iterator[tuple[Tensor, Tensor]] | None:
    """Endless training batches from the ``start``-th on; each pass over the data depends on the seed and its number."""
    return None if plan.data is None else _endless(plan.data, plan, start)


def _endless(data: Splits, plan: Plan, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    epoch, skipped = divmod(start, len(data.batches("train", plan.batch_size)))
    while True:
        batches = data.batches("train", plan.batch_size, seed=derived_seed(plan.seed, epoch))
        yield from islice(batches, skipped, None)
        epoch, skipped = epoch + 1, 0


class _Keeper:
    """The checkpoint of a search: where it is, and the state of its stage."""

    def __init__(self, path: Path | None, plan: Plan, found: Found) -> None:
        self._path, self._found = path, found
        self._origin = {**asdict(plan.settings), "sizes": plan.sizes, "warm_up": plan.warm_up, "steps": plan.steps}
        self._origin |= {"seed": plan.seed, "batch_size": plan.batch_size, "steered": plan.steered}
        self._due = time.monotonic() + _SECONDS_BETWEEN_CHECKPOINTS

    def load(self) -> tuple[int, int, dict[str, Any] | None]:
        """(stage, its step, the stage's state) to go on from, having filled in what was found before."""
        if self._path is None or not self._path.exists():
            return 0, 0, None
        remedy = "delete it to restart this search"
        try:
            content = torch.load(self._path, weights_only=True)
        except Exception as error:
            raise LrsearchError(f"checkpoint {self._path} cannot be read ({type(error).__name__}); {remedy}") from error
        if content["origin"] != self._origin:
            raise LrsearchError(f"checkpoint {self._path} belongs to a search with other settings; {remedy}")
        for name, value in content["found"].items():
            setattr(self._found, name, value)
        return content["stage"], content["step"], content["state"]

    def save(self, index: int, step: int, stage: Stage) -> None:
        """Replace the file where one is due."""
        if self._path is None or time.monotonic() < self._due:
            return
        content = {"origin": self._origin, "found": asdict(self._found), "stage": index, "step": step}
        with replacing(self._path) as temporary:
            torch.save({**content, "state": stage.state()}, temporary)
        self._due = time.monotonic() + _SECONDS_BETWEEN_CHECKPOINTS
