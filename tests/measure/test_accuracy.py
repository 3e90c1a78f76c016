import math
from pathlib import Path

import pytest
import torch
from torch import nn

from lrsearch.data.scores import mean_iou
from lrsearch.errors import LrsearchError
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
    assert evaluate(nn.Identity(), batches, CPU, gate) == {"accuracy": pytest.approx(100 * 5 / 7)}


def test_pixels_are_judged_over_all_batches_and_those_of_no_class_are_passed_over(gate: DeviceGate) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 4, (6, 5, 7), generator=generator)
    answers = torch.where(torch.rand(targets.shape, generator=generator) < 0.6, targets, 2)
    targets[0, :2], targets[3] = -100, -100
    logits = nn.functional.one_hot(answers, 6).movedim(-1, 1).float()
    found = evaluate(nn.Identity(), list(zip(logits.split(4), targets.split(4), strict=True)), CPU, gate, mean_iou)
    asked = [(t, a) for t, a in zip(targets.flatten().tolist(), answers.flatten().tolist(), strict=True) if t >= 0]
    ratios = []
    for label in range(6):
        either = [pair for pair in asked if label in pair]
        if either:
            ratios.append(sum(t == a for t, a in either) / len(either))
    assert found["accuracy"] == pytest.approx(100 * sum(ratios) / len(ratios)) and len(ratios) == 4
    assert found["pixel_accuracy"] == pytest.approx(100 * sum(t == a for t, a in asked) / len(asked))


def test_a_class_that_the_network_does_not_know_is_named(gate: DeviceGate) -> None:
    with pytest.raises(LrsearchError, match="class 7, but the network tells 4 classes apart"):
        evaluate(nn.Identity(), [(torch.randn(2, 4), torch.tensor([1, 7]))], CPU, gate)


def test_nothing_to_evaluate_has_no_accuracy(gate: DeviceGate) -> None:
    assert math.isnan(evaluate(nn.Identity(), [], CPU, gate)["accuracy"])
    assert all(math.isnan(value) for value in evaluate(nn.Identity(), [], CPU, gate, mean_iou).values())


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
