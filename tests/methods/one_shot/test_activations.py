"""What is observed of layers, against explicit patches."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrsearch.errors import LrsearchError
from lrsearch.factorize import find_layers
from lrsearch.methods.one_shot.activations import POSITIONS, Covariances, observe, patches_of
from lrsearch.methods.one_shot.shrinkage import shrunk
from tests.methods.zoo import images, zoo

CPU = torch.device("cpu")
KINDS = ("stem", "grouped", "point", "strided", "dilated", "reflecting", "same", "strided_point", "hidden", "head")


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    return [(batch, torch.zeros(len(batch))) for batch in images(count).split(3)]


def watched(count: int = 8, limit: int = 100) -> tuple[nn.Module, dict[str, Tensor]]:
    model = zoo()
    return model, observe(model, find_layers(model)[0], batches(count), CPU, limit, Covariances)


@pytest.mark.parametrize("kind", KINDS)
def test_patches_times_the_weight_are_the_layers_outputs(kind: str) -> None:
    model, layer = zoo(), None
    layer = model.get_submodule(kind)
    seen: list[tuple[Tensor, Tensor]] = []
    layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    model(images(2))
    ((given, output),) = seen
    groups = getattr(layer, "groups", 1)
    patches = patches_of(layer, given)
    patches = patches.reshape(*patches.shape[:2], groups, -1)
    weight = layer.weight.flatten(1).reshape(groups, -1, patches.shape[-1])
    multiplied = torch.einsum("npgd,gsd->npgs", patches, weight).flatten(2)
    if layer.bias is not None:
        multiplied = multiplied + layer.bias
    expected = output.flatten(2).mT if output.dim() == 4 else output[None]
    torch.testing.assert_close(multiplied, expected)


@pytest.fixture
def as_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments as they are summed, not shrunk."""
    monkeypatch.setattr("lrsearch.methods.one_shot.activations.shrunk", lambda moments, _: moments)


@pytest.mark.usefixtures("as_seen")
def test_covariances_are_those_of_unfolded_inputs() -> None:
    """Where no position is left out: the strided layers put out 6 x 6 and the linear ones single rows."""
    model, found = watched()
    inputs: dict[str, Tensor] = {}
    for kind in ("dilated", "hidden"):
        model.get_submodule(kind).register_forward_hook(
            lambda _, given, output, kind=kind: inputs.__setitem__(kind, given[0])
        )
    model(images(8))
    unfolded = functional.unfold(inputs["dilated"], 3, dilation=2, padding=2).transpose(0, 1).flatten(1)
    assert unfolded.shape[1] == 8 * 36 <= 8 * POSITIONS
    centred = unfolded - unfolded.mean(1, keepdim=True)
    torch.testing.assert_close(found["dilated/inputs"][0], centred @ centred.mT / unfolded.shape[1])
    torch.testing.assert_close(found["dilated/mean"][0], unfolded.mean(1))
    torch.testing.assert_close(found["hidden/inputs"][0], inputs["hidden"].mT.cov(correction=0))


@pytest.mark.usefixtures("as_seen")
def test_the_mean_counts_only_where_nothing_behind_the_layer_makes_up_for_it() -> None:
    """The stem is followed by batch norm, the strided point by a ReLU, and neither has a bias."""
    model, found = watched()
    for name, absorbed in (("stem", True), ("strided_point", False)):
        (moment,), (mean,) = found[f"{name}/inputs"], found[f"{name}/mean"]
        with_mean = moment + torch.outer(mean, mean) if absorbed else moment
        layer = model.get_submodule(name)
        weight = layer.weight.detach().flatten(1)
        energy = float(((weight @ with_mean) * weight).sum())
        outputs: list[Tensor] = []
        layer.register_forward_hook(lambda _, given, output, outputs=outputs: outputs.append(output))
        model(images(8))
        positions = outputs[0].mT.flatten(2).shape[-1]
        exact = float(outputs[0].detach().square().sum() / (8 * positions))
        assert energy == pytest.approx(exact, rel=1e-6 if positions <= POSITIONS else 0.2), name


def test_inputs_are_shrunk_by_the_number_of_their_positions() -> None:
    model, found = watched()
    given: list[Tensor] = []
    model.hidden.register_forward_hook(lambda _, inputs, output: given.append(inputs[0].detach()))
    model(images(8))
    covariance = given[0].double().mT.cov(correction=0)
    torch.testing.assert_close(found["hidden/inputs"], shrunk(covariance[None], 8))


def test_the_network_is_left_as_it_was() -> None:
    model = zoo().train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    observe(model, find_layers(model)[0], batches(4), CPU, 100, Covariances)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_only_so_many_images_are_looked_at_and_labels_never() -> None:
    _, first = watched(count=5)
    _, limited = watched(count=8, limit=5)
    assert first.keys() == limited.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, limited[key])
    assert not any(key.startswith("unused") for key in first)


def test_no_data_is_an_error() -> None:
    model = zoo()
    with pytest.raises(LrsearchError, match="holds no batch"):
        observe(model, find_layers(model)[0], [], CPU, 10, Covariances)
