"""The factors of the Fisher information, against Jacobians of all classes of single images."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrsearch.factorize import find_layers
from lrsearch.methods.one_shot.activations import observe
from lrsearch.methods.one_shot.fisher import Fisher
from lrsearch.methods.one_shot.shrinkage import shrunk
from tests.methods.zoo import images, zoo

REPEATS = 300
"""Of the same images, each time with other signs."""


@pytest.fixture(scope="module")
def found() -> dict[str, Tensor]:
    model, inputs = zoo(), images(8)
    layers = {name: shape for name, shape in find_layers(model)[0].items() if name in ("strided_point", "grouped")}
    return observe(model, layers, [(inputs, torch.zeros(8))] * REPEATS, torch.device("cpu"), 8 * REPEATS, Fisher)


def roots(name: str) -> Tensor:
    """(images, classes, S, D): the root of an image's Fisher information of the layer's weight."""
    model = zoo()
    weight, made = model.get_submodule(name).weight, []
    for image in images(8):
        logits = model(image[None])[0]
        p = logits.softmax(0).detach()
        jacobian = torch.stack([torch.autograd.grad(each, weight, retain_graph=True)[0].flatten(1) for each in logits])
        made.append(p.sqrt()[:, None, None] * (jacobian - torch.tensordot(p, jacobian, 1)))
    return torch.stack(made)


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert float((found - expected).norm()) < tolerance * float(expected.norm())


def test_both_factors_are_second_moments_of_the_weights_gradient(found: dict[str, Tensor]) -> None:
    """Nothing behind the strided point makes up for its mean, so that none is taken off."""
    root = roots("strided_point")
    close(found["strided_point/inputs"][0], torch.einsum("ncsd,ncse->de", root, root) / 8, 0.1)
    outputs = torch.einsum("ncsd,nctd->st", root, root)
    floored = 0.98 * outputs / outputs.trace() + 0.02 * torch.eye(len(outputs)) / len(outputs)
    close(found["strided_point/outputs"][0], floored, 0.1)


def test_a_mean_that_can_be_made_up_for_counts_nothing(found: dict[str, Tensor]) -> None:
    """Each group on its own; the change of the output that the mean makes is the gradient of the bias times it."""
    model, given, rows = zoo(), [], []
    model.grouped.register_forward_hook(lambda _, inputs, output: given.append((inputs[0], output)))
    for image in images(8):
        p = model(image[None])[0].softmax(0).detach()
        for index in range(10):
            logits = model(image[None])[0]
            inputs, output = given[-1]
            (gradient,) = torch.autograd.grad(p[index].sqrt() * (logits[index] - (p * logits).sum()), output)
            rows.append((functional.unfold(inputs, 3, padding=1)[0].mT.detach(), gradient[0].flatten(1)))
    mean = torch.cat([patches for patches, _ in rows]).mean(0)
    for group, (side, outputs) in enumerate(((slice(0, 54), slice(0, 12)), (slice(54, 108), slice(12, 24)))):
        weights = [gradient[outputs] @ (patches - mean)[:, side] for patches, gradient in rows]
        expected = torch.stack([weight.mT @ weight for weight in weights]).sum(0) / 8
        close(found["grouped/inputs"][group], expected, 0.1)


@pytest.mark.parametrize("outputs", [6, 60])
@pytest.mark.parametrize("groups", [1, 3])
def test_sums_are_of_the_gradients_of_four_images_at_once(
    outputs: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more positions than outputs and with fewer, block by block of the inputs."""
    monkeypatch.setattr("lrsearch.methods.one_shot.activations._BLOCK", 7)
    layer = nn.Conv2d(2 * groups, outputs, 3, padding=1, groups=groups, bias=False, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 2 * groups, 2, 2, dtype=torch.float64, generator=generator)
    gradient = torch.randn(20, outputs, 2, 2, dtype=torch.float64, generator=generator)
    fisher = Fisher(layer, find_layers(nn.Sequential(layer))[0]["0"])
    fisher.see(inputs, gradient, 20)
    found = fisher.result(20)
    weights = torch.stack(
        [
            nn.grad.conv2d_weight(given, layer.weight.shape, mattered, padding=1, groups=groups)
            for given, mattered in zip(inputs.split(4), gradient.split(4), strict=True)
        ]
    ).reshape(5, groups, outputs // groups, 18)
    expected = torch.einsum("ngsd,ngse->gde", weights, weights) / 20
    torch.testing.assert_close(found["inputs"], shrunk(expected, 5 * min(outputs // groups, 16)))
    moments = torch.einsum("ngsd,ngtd->gst", weights, weights)
    shares = moments / torch.einsum("gss->g", moments)[:, None, None]
    torch.testing.assert_close(found["outputs"], 0.98 * shares + 0.02 * torch.eye(len(shares[0])) / len(shares[0]))
