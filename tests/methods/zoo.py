"""A small network with one layer of every kind, and how to run a method on it."""

from collections.abc import Generator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lrsearch.data import Splits
from lrsearch.methods import load_method, parse_hyperparameters
from lrsearch.methods.base import Compressed, Hyperparameters, Progress, Task

WIDTH = 12


class Variant(str):
    """The name of a method that is tested with other hyperparameters than its defaults."""

    __slots__ = ("settings",)

    def __new__(cls, method: str, **settings: Any) -> "Variant":
        variant = super().__new__(cls, method)
        variant.settings = settings
        return variant

    @property
    def label(self) -> str:
        """Names a test."""
        return "-".join([self, *(f"{name}={value}" for name, value in self.settings.items())])


VARIANTS = (
    Variant("tucker", branches=2),
    Variant("tucker", branches=4),
    Variant("tucker", freeze="published"),
    Variant("tucker", freeze="sequential"),
    Variant("tucker", merge=True),
)
BRIEF: dict[str, dict[str, Any]] = {"rene": {"steps": 2, "warm_up": 1}}
"""Settings of methods that train, whose results hold whatever these tests ask for however short the training is."""


class Zoo(nn.Module):
    """Maps (N, 3, 12, 12) to (N, 10); in double precision, so that equal means equal."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.grouped = nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1, groups=2)
        self.point = nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.strided = nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(WIDTH), nn.BatchNorm2d(WIDTH)])
        self.dilated = nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2)
        self.reflecting = nn.Conv2d(WIDTH, WIDTH, (3, 5), padding=(1, 2), padding_mode="reflect")
        self.same = nn.Conv2d(WIDTH, WIDTH, (2, 3), padding="same", padding_mode="circular")
        self.strided_point = nn.Conv2d(WIDTH, 2 * WIDTH, 1, stride=2, bias=False)
        self.tiny = nn.Conv2d(2 * WIDTH, 1, 1)
        self.hidden = nn.Linear(9, 40)
        self.head = nn.Linear(40, 10)
        self.unused = nn.Linear(20, 20)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = self.same(self.reflecting(torch.relu(self.strided(x))))
        x = torch.relu(self.norms[0](self.point(torch.relu(self.grouped(self.depthwise(x))))))
        x = torch.relu(self.norms[1](self.dilated(x)))
        x = self.tiny(torch.relu(self.strided_point(x))).flatten(1)
        logits: Tensor = self.head(torch.relu(self.hidden(x)))
        return logits


def zoo(*, low_rank: bool = False) -> Zoo:
    """The network with seeded weights; ``low_rank``: outer products of vectors, so that rank 1 is exact."""
    generator = torch.Generator().manual_seed(0)
    model = Zoo().eval()
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if low_rank and parameter.dim() > 1:
            values = outer_product(parameter.shape, generator)
        with torch.no_grad():
            parameter.copy_(values / max(1, parameter[0].numel()) ** 0.5)
    return model


def outer_product(shape: torch.Size, generator: torch.Generator) -> Tensor:
    product = torch.ones((), dtype=torch.float64)
    for size in shape:
        product = product[..., None] * torch.randn(size, generator=generator, dtype=torch.float64)
    return product


def images(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def labelled(inputs: Tensor) -> Splits:
    """Splits for methods that train: the inputs with a class each, every split the same few."""
    items = TensorDataset(inputs, torch.arange(len(inputs)) % 10)
    return Splits("made up", items, items, items, items, classes=10)


def make_task(*, example: bool = True, seed: int = 0) -> Task:
    generator = torch.Generator().manual_seed(seed)
    return Task(example_input=images() if example else None, splits=labelled(images(8)), generator=generator)


def compress(
    method: str, values: Mapping[str, Any], model: nn.Module | None = None, task: Task | None = None
) -> Compressed:
    return collect(steps(method, values, model, task))[1]


def steps(
    method: str, values: Mapping[str, Any], model: nn.Module | None = None, task: Task | None = None
) -> Generator[Progress, None, Compressed]:
    model = zoo() if model is None else model
    task = make_task() if task is None else task
    chosen = load_method(method)
    return chosen.compress(model, task, parsed(method, values), chosen.statistics(model, task))


def parsed(method: str, values: Mapping[str, Any]) -> Hyperparameters:
    settings = method.settings if isinstance(method, Variant) else {}
    if settings.get("merge") and "budget" in values:
        pytest.skip("merging is told how narrow by alpha alone")
    return parse_hyperparameters(method, {**BRIEF.get(method, {}), **settings, **values})


def collect(running: Generator[Progress, None, Compressed]) -> tuple[list[Progress], Compressed]:
    seen = []
    while True:
        try:
            seen.append(next(running))
        except StopIteration as stop:
            compressed: Compressed = stop.value
            return seen, compressed
