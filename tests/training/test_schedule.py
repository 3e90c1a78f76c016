from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrsearch.training import TrainingConfig
from lrsearch.training.schedule import learning_rate


def rates(config: TrainingConfig) -> list[float]:
    return [learning_rate(config, epoch) for epoch in range(config.epochs)]


def torch_rates(config: TrainingConfig) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.lr)
    schedulers: dict[str, Callable[[], Any]] = {
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs),
        "step": lambda: torch.optim.lr_scheduler.MultiStepLR(optimizer, config.milestones, config.gamma),
        "poly": lambda: torch.optim.lr_scheduler.PolynomialLR(optimizer, config.epochs, power=config.power),
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1),
    }
    scheduler = schedulers[config.schedule]()
    found = []
    for _ in range(config.epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("schedule", ["cosine", "step", "poly", "constant"])
def test_whole_epochs_agree_with_torchs_schedulers(schedule: Any) -> None:
    config = TrainingConfig(epochs=10, lr=0.3, schedule=schedule, milestones=(3, 7), gamma=0.2)
    assert rates(config) == pytest.approx(torch_rates(config))


@given(
    epochs=st.integers(1, 20),
    more=st.integers(0, 20),
    warmup=st.integers(0, 5),
    schedule=st.sampled_from(["cosine", "step", "poly", "constant"]),
)
def test_rewinding_runs_the_end_of_the_long_schedule(epochs: int, more: int, warmup: int, schedule: Any) -> None:
    options: dict[str, Any] = {"schedule": schedule, "milestones": (2, 9), "warmup_epochs": warmup}
    long = TrainingConfig(epochs=epochs + more, **options)
    short = TrainingConfig(epochs=epochs, schedule_epochs=epochs + more, **options)
    assert rates(short) == pytest.approx(rates(long)[more:])


def test_warm_up_rises_linearly_and_the_schedule_starts_at_the_full_rate() -> None:
    config = TrainingConfig(epochs=10, lr=0.4, warmup_epochs=4)
    assert [learning_rate(config, epoch) for epoch in (0, 1, 2, 3.5, 4)] == pytest.approx([0, 0.1, 0.2, 0.35, 0.4])
    assert learning_rate(config, 7) == pytest.approx(0.2)
    assert learning_rate(config, 10) == pytest.approx(0, abs=1e-12)
