from typing import Any

import pytest
import torch
from torch import nn

from lrsearch.training import TrainingConfig
from lrsearch.training.optimizer import build_optimizer


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW"), ("rmsprop", "RMSprop")]
)
def test_weights_decay_and_biases_scales_and_frozen_parameters_do_not(name: Any, kind: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 5), nn.Linear(5, 5))
    model[3].requires_grad_(False)
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = build_optimizer(model, TrainingConfig(optimizer=name, lr=0.1, weight_decay=0.5))
    assert type(optimizer).__name__ == kind
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert changed == {"0.weight", "2.weight"}
