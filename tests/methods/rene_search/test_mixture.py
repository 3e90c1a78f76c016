from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy

from lrsearch.methods.rene_search.mixture import mixture_loss


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten()
    model = nn.Sequential(*layers).double().eval()
    model[1].running_mean.uniform_()
    model[1].running_var.uniform_(1, 2)
    return model


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 3, 5, 5, dtype=torch.float64), torch.arange(6) % 5


def test_a_mixture_of_weights_is_the_mixture_of_the_outputs_and_costs_one_convolution_per_layer() -> None:
    model, (x, targets) = network(), batch()
    candidates = [torch.randn(5, 4, 3, 3, dtype=torch.float64) for _ in range(4)]
    p = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    hidden = model[:3](x)
    outputs = sum(part * conv2d(hidden, weight, model[3].bias) for part, weight in zip(p, candidates, strict=True))
    expected = cross_entropy(torch.as_tensor(outputs).flatten(1), targets)
    mixed = torch.einsum("k,kschw->schw", p, torch.stack(candidates))
    weights = {"0": model[0].weight, "3": mixed}
    with patch.object(nn.Conv2d, "_conv_forward", autospec=True, side_effect=nn.Conv2d._conv_forward) as convolved:
        loss, gradients = mixture_loss(model, weights, x, targets, recalibrate=False)
    assert convolved.call_count == 2
    torch.testing.assert_close(loss, expected.detach())
    assert {name: gradient.shape for name, gradient in gradients.items()} == {n: w.shape for n, w in weights.items()}


def test_gradients_are_those_of_the_network_itself_which_is_left_as_it_is() -> None:
    """Where batch norm is to be re-estimated, it uses the batch's own statistics."""
    model, (x, targets) = network(), batch()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {name: torch.randn_like(model.get_submodule(name).weight) for name in ("0", "3")}
    _, gradients = mixture_loss(model, weights, x, targets, recalibrate=True)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    model.train()
    for name, weight in weights.items():
        model.get_submodule(name).weight.data = weight
    cross_entropy(model(x), targets).backward()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, model.get_submodule(name).weight.grad)
