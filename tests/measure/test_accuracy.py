import math
from pathlib import Path

import pytest
import torch
from torch import nn

from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.gate import DeviceGate

CPU = torch.device("cpu")


@pytest.fixture
def gate(tmp_path: Path) -> DeviceGate:
    return DeviceGate("cpu", tmp_path)


def test_it_is_the_share_of_correct_answers_over_all_batches(gate: DeviceGate) -> None:
    targets = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    answers = torch.tensor([0, 1, 2, 0, 1, 1, 2])
    logits = nn.functional.one_hot(answers, 4).float()
    batches = [(logits[:4], targets[:4]), (logits[4:6], targets[4:6]), (logits[6:], targets[6:])]
    assert evaluate(nn.Identity(), batches, CPU, gate) == pytest.approx(100 * 5 / 7)


def test_nothing_to_evaluate_has_no_accuracy(gate: DeviceGate) -> None:
    assert math.isnan(evaluate(nn.Identity(), [], CPU, gate))


def test_it_looks_in_eval_mode_and_leaves_every_mode_as_it_was(gate: DeviceGate) -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 3))
    model.train()
    model[0].eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batches = [(torch.randn(50, 4), torch.zeros(50).long())]
    assert evaluate(model, batches, CPU, gate) == evaluate(model, batches, CPU, gate)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_failing_network_keeps_its_modes_and_frees_the_gate(gate: DeviceGate) -> None:
    model = nn.Linear(4, 3).train()
    with pytest.raises(RuntimeError):
        evaluate(model, [(torch.randn(2, 5), torch.zeros(2))], CPU, gate)
    assert model.training
    with gate.measurement():
        pass
