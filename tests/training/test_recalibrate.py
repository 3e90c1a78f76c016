from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrsearch.measure.gate import DeviceGate
from lrsearch.training import recalibrate_batch_norm

CPU = torch.device("cpu")


def batches(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(3 + 2 * torch.randn(size, 4, 5, 5, generator=generator), torch.zeros(size).long()) for size in sizes]


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm2d(4),
        nn.Dropout(0.5),
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6),
        nn.BatchNorm2d(6, track_running_stats=False),
    ).eval()


def test_statistics_are_averages_over_the_images_and_the_past_is_forgotten() -> None:
    model = network()
    model[0].running_mean.fill_(float("nan"))
    data = batches(8, 8, 3)
    recalibrate_batch_norm(model, data, CPU)
    sizes = torch.tensor([8.0, 8.0, 3.0])
    means = torch.stack([inputs.mean((0, 2, 3)) for inputs, _ in data], 1) @ sizes / 19
    variances = torch.stack([inputs.transpose(0, 1).flatten(1).var(1) for inputs, _ in data], 1) @ sizes / 19
    assert torch.allclose(model[0].running_mean, means, atol=1e-5)
    assert torch.allclose(model[0].running_var, variances, atol=1e-4)


def test_later_layers_see_what_training_would_show_them_without_dropout() -> None:
    model = network()
    data = batches(16)
    recalibrate_batch_norm(model, data, CPU)
    inputs = data[0][0]
    normalised = (inputs - inputs.mean((0, 2, 3), keepdim=True)) / (
        inputs.var((0, 2, 3), keepdim=True, correction=0) + 1e-5
    ).sqrt()
    outputs = model[2](normalised)
    assert torch.allclose(model[3].running_mean, outputs.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(model[3].running_var, outputs.transpose(0, 1).flatten(1).var(1), rtol=1e-3)


def test_a_reference_keeps_its_statistics_but_for_what_changed_on_the_data() -> None:
    model, reference = network(), network()
    for norm in (reference[0], reference[3]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(1, 2)
    before = {key: value.clone() for key, value in reference.state_dict().items()}
    recalibrate_batch_norm(model, batches(16, 9), CPU, reference=reference)
    for key, value in reference.state_dict().items():
        assert torch.equal(value, before[key])
    assert torch.allclose(model[0].running_mean, reference[0].running_mean, atol=1e-6)
    assert torch.allclose(model[3].running_var, reference[3].running_var, rtol=1e-5)
    with torch.no_grad():
        model[2].weight.mul_(3)
        model[2].bias.add_(5).mul_(3)
    recalibrate_batch_norm(model, batches(16, 9), CPU, reference=reference)
    assert torch.allclose(model[3].running_var, 3 * reference[3].running_var, rtol=1e-4)


def test_a_batch_norm_that_lost_channels_takes_the_averages() -> None:
    model, alone = (
        nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5), network()[2], nn.BatchNorm2d(3)).eval() for _ in range(2)
    )
    for pruned in (model, alone):
        pruned[2].weight.data, pruned[2].bias.data = pruned[2].weight.data[:3], pruned[2].bias.data[:3]
    recalibrate_batch_norm(alone, batches(16, 9), CPU)
    recalibrate_batch_norm(model, batches(16, 9), CPU, reference=network())
    assert torch.equal(model[3].running_mean, alone[3].running_mean)
    assert not torch.equal(model[3].running_mean, torch.zeros(3))


def test_it_repairs_a_network_whose_statistics_are_wrong() -> None:
    model = network()
    model[3].running_mean.fill_(50)
    inputs = batches(64)[0][0]
    assert model[:4](inputs).mean().abs() > 10
    recalibrate_batch_norm(model, batches(64), CPU)
    assert model[:4](inputs).mean().abs() < 0.1


@pytest.mark.parametrize("training", [True, False])
def test_modes_momenta_weights_and_gradients_are_left_alone(training: bool) -> None:
    model = network().train(training)
    model[3].momentum = None
    before = {key: value.clone() for key, value in model.named_parameters()}
    recalibrate_batch_norm(model, batches(4, 4), CPU)
    assert all(module.training is training for module in model.modules())
    assert (model[0].momentum, model[3].momentum) == (0.1, None)
    assert all(torch.equal(value, before[key]) and value.grad is None for key, value in model.named_parameters())


@pytest.mark.parametrize("sizes", [(), (1,), (1, 1)])
def test_without_a_batch_that_has_a_variance_nothing_changes(sizes: tuple[int, ...]) -> None:
    model = network()
    model[0].running_mean.fill_(7)
    recalibrate_batch_norm(model, batches(*sizes), CPU)
    assert model[0].running_mean.tolist() == [7] * 4


def test_single_images_are_left_out_of_the_average() -> None:
    first, second = network(), network()
    data = batches(8, 8)
    recalibrate_batch_norm(first, data, CPU)
    recalibrate_batch_norm(second, [data[0], (100 * torch.ones(1, 4, 5, 5), torch.zeros(1)), data[1]], CPU)
    assert torch.equal(first[0].running_mean, second[0].running_mean)


def test_a_failing_batch_leaves_modes_and_momenta_as_they_were(tmp_path: Path) -> None:
    model = network().train()
    gate = DeviceGate("cpu", tmp_path)
    with pytest.raises(ValueError, match="4D"):
        recalibrate_batch_norm(model, [*batches(4), (torch.zeros(4, 9), torch.zeros(4))], CPU, gate)
    assert all(module.training for module in model.modules()) and model[0].momentum == 0.1
    with gate.measurement():
        pass
