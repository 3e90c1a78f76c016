import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lrsearch.data import Splits
from lrsearch.factorize import factorize_layer
from lrsearch.measure.gate import DeviceGate
from lrsearch.recipe import Factorization
from lrsearch.training import Retraining, TrainingConfig, train
from lrsearch.training.distillation import distil_layers, distil_logits
from tests.methods.zoo import labelled

NAMES = ["0", "4"]


def pair(dtype: torch.dtype = torch.float64) -> tuple[nn.Sequential, nn.Sequential]:
    """A dense network in eval mode, and the same with two factorized layers, training."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10)).to(
        dtype
    )
    student = copy.deepcopy(teacher)
    student[0] = factorize_layer(teacher[0], Factorization(kind="tt", ranks=(2, 3)))
    student[4] = factorize_layer(teacher[4], Factorization(kind="svd", ranks=(2,)))
    return student.train(), teacher.eval()


def inputs(batch: int = 5) -> Tensor:
    return torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_layers_are_compared_by_weights_and_outputs() -> None:
    student, teacher = pair()
    x = inputs()
    loss = distil_layers(student, teacher, NAMES, 0.5)(x, student(x))
    weights = [
        torch.einsum(
            "sr,rqhw,qc->schw", student[0][2].weight[..., 0, 0], student[0][1].weight, student[0][0].weight[..., 0, 0]
        ),
        student[4][1].weight @ student[4][0].weight,
    ]
    expected = sum((w - teacher[int(n)].weight).square().mean() for w, n in zip(weights, NAMES, strict=True))
    output = student[0](x)
    hidden = torch.relu(nn.functional.batch_norm(output, None, None, student[1].weight, student[1].bias, training=True))
    expected = expected + (output - teacher[0](x)).square().mean()
    expected = expected + (student[4](hidden.flatten(1)) - teacher(x)).square().mean()
    torch.testing.assert_close(loss, 0.5 * expected)


def test_equal_networks_are_at_distance_zero_and_the_teacher_is_left_alone() -> None:
    _, teacher = pair()
    student = copy.deepcopy(teacher)
    student[0] = factorize_layer(teacher[0], Factorization(kind="tt", ranks=(3, 8)))
    student.train()
    student[1].eval()
    state = copy.deepcopy(teacher.state_dict())
    loss = distil_layers(student, teacher.train(), ["0"], 1.0)(inputs(), student(inputs()))
    assert float(loss.detach()) < 1e-20
    assert teacher.training
    assert all(torch.equal(value, state[key]) for key, value in teacher.state_dict().items())
    assert not teacher[0]._forward_hooks


def test_evaluations_between_steps_are_not_remembered() -> None:
    student, teacher = pair()
    loss = distil_layers(student, teacher, NAMES, 1.0)
    with torch.no_grad():
        student.eval()(inputs(3))
    student.train()
    assert torch.isfinite(loss(inputs(), student(inputs())))


def test_descending_brings_the_layers_closer() -> None:
    student, teacher = pair()
    student[1].eval()
    loss = distil_layers(student, teacher, NAMES, 1.0)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(inputs(), student(inputs()))
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.8 * values[0]


def test_logits_are_compared_by_the_divergence_of_softened_probabilities() -> None:
    student, teacher = pair()
    x = inputs()
    soft, wanted = (network(x).div(2.0).softmax(1) for network in (student, teacher))
    expected = 3.0 * 4.0 * (wanted * (wanted / soft).log()).sum(1).mean()
    torch.testing.assert_close(distil_logits(teacher, 3.0, temperature=2.0)(x, student(x)), expected)


@pytest.mark.parametrize("kind", ["layers", "logits"])
def test_both_are_extra_losses_of_a_training(kind: str) -> None:
    student, teacher = pair()
    extra = distil_layers(student, teacher, NAMES, 1.0) if kind == "layers" else distil_logits(teacher, 1.0)
    splits: Splits = labelled(inputs(16))
    before = copy.deepcopy(student).train()
    x, y = next(iter(splits.batches("train", 16)))
    plain = float(cross_entropy(before(x), y).detach())
    config = TrainingConfig(epochs=1, batch_size=16, lr=1e-9)
    device, gate = torch.device("cpu"), DeviceGate("cpu")
    (epoch,) = train(student, splits, config, device=device, seed=0, gate=gate, retraining=Retraining(extra_loss=extra))
    assert epoch.loss > plain
