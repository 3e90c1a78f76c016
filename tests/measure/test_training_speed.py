from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lrsearch.measure import training_speed
from lrsearch.measure.training_speed import measure_training
from tests.measure.test_throughput import network


class Logits(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x).mean((2, 3))
        return logits


def clock(runs: Sequence[Callable[[], object]], device: torch.device, **_: Any) -> Any:
    """Stands in for measuring: steps of the network take 2 s, of the dense one 3 s."""
    for run in (*runs, *runs):
        run()
    return np.array([[2.0, 3.0]] * 5)


def test_steps_are_compared_and_leave_both_networks_and_the_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_speed, "interleaved", clock)
    model, dense = Logits(network()).eval(), Logits(nn.Sequential(network(), nn.Dropout()))
    inputs, state = torch.randn(8, 3, 16, 16), {key: value.clone() for key, value in dense.state_dict().items()}
    random_state = torch.get_rng_state()
    result = measure_training(model, dense, inputs, frozen=["body.0.weight"])
    assert torch.equal(torch.get_rng_state(), random_state)
    assert (result.speedup, result.images_per_second, result.dense_images_per_second) == (
        1.5,
        4.0,
        pytest.approx(8 / 3),
    )
    assert all(torch.equal(value, state[key]) for key, value in dense.state_dict().items())
    assert not model.training and dense.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_with_everything_frozen_there_is_nothing_to_train() -> None:
    body = network()
    everything = [f"body.{name}" for name, _ in body.named_parameters()]
    with pytest.raises(ValueError, match="empty parameter list"):
        measure_training(Logits(body), Logits(body), torch.randn(4, 3, 8, 8), frozen=everything, seconds=0.1)
