"""alds_output on calibration inputs; without any it is held by the contract suite."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lrsearch
from lrsearch.methods.base import Compressed, Task
from tests.methods.zoo import compress, images, make_task, zoo


def task(count: int = 64) -> Task:
    batches = [(batch, torch.zeros(len(batch))) for batch in images(count).split(16)]
    return replace(make_task(), calibration=batches)


def divergence(small: nn.Module, model: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        return float(
            functional.kl_div(
                small(inputs).log_softmax(1), model(inputs).log_softmax(1), reduction="batchmean", log_target=True
            )
        )


@pytest.mark.parametrize("kept", [0.4, 0.6])
def test_predictions_change_less_than_by_looking_at_weights_alone(kept: float) -> None:
    model, values, unseen = zoo(), {"budget": {"params": kept}}, images(400)[300:]
    blind = divergence(compress("alds_output", values, model).model, model, unseen)
    seeing = divergence(compress("alds_output", values, model, task(300)).model, model, unseen)
    assert seeing < 0.8 * blind


def test_the_mean_output_of_a_layer_is_kept() -> None:
    model = zoo()
    compressed: Compressed = compress("alds_output", {"budget": {"params": 0.3}}, model, task())
    for name in ("dilated", "hidden"):
        assert compressed.recipe.layers[name].kind == "svd"
        given: list[Tensor] = []
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs, given=given: given.append(inputs[0]))
        model(images(64))
        dims = (0, 2, 3) if given[0].dim() == 4 else 0
        before, after = (network.get_submodule(name)(given[0]).mean(dims) for network in (zoo(), compressed.model))
        torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", ["alds_output", "pca"])
def test_weights_of_low_rank_are_compressed_without_loss_on_any_data(method: str) -> None:
    model, x = zoo(low_rank=True), images(4)
    compressed = compress(method, {"budget": {"params": 0.6}}, model, task())
    torch.testing.assert_close(compressed.model.eval()(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["alds_output", "pca"])
@pytest.mark.parametrize("resource", ["params", "flops"])
def test_same_data_same_network(method: str, resource: str) -> None:
    first, second = (compress(method, {"budget": {resource: 0.5}}, task=task()) for _ in range(2))
    assert first.recipe == second.recipe
    states = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("method", ["alds_output", "pca"])
def test_few_inputs_far_from_zero_in_a_wide_layer_are_no_trouble(method: str) -> None:
    """Their covariance, kept in single precision, has few directions and one that dwarfs all others."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(256, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 8, 3), nn.Flatten())
    inputs = torch.randn(4, 256, 4, 4).abs() + 10

    result = lrsearch.compress(body.eval(), method, {"params": 0.5}, [(inputs, torch.zeros(4, dtype=torch.long))])

    with torch.no_grad():
        exact, close = body(inputs), result.model(inputs)
    assert float((close - exact).norm()) < 0.05 * float(exact.norm())
