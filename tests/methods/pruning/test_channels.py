"""A network without channels is the dense network in which nobody reads these channels."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import restructure
from lrsearch.methods.pruning.channels import Coupled, find_coupled, smaller_layers, without
from lrsearch.models import build_model
from tests.methods.zoo import images, zoo


class Joined(nn.Module):
    """A concatenation, a depthwise convolution, a sum, and a Linear layer behind flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(3, 6, 1)
        self.norm = nn.BatchNorm2d(10)
        self.depthwise = nn.Conv2d(10, 10, 3, padding=1, groups=10)
        self.block = nn.Conv2d(10, 10, 3, padding=1)
        self.head = nn.Linear(10 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        x = x + torch.relu(self.block(self.depthwise(x)))
        y: Tensor = self.head(x.flatten(1))
        return y


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias)
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "zoo": (zoo, (3, 12, 12)),
    "joined": (Joined, (3, 4, 4)),
    "digits_resnet": (lambda: build_model({"name": "digits_resnet", "width": 8}), (1, 8, 8)),
    "resnet20": (lambda: build_model({"name": "resnet20"}), (3, 32, 32)),
    "mobilenet": (lambda: build_model({"name": "mobilenet_v2", "width_mult": 0.25}), (3, 32, 32)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_to_remove_channels_is_not_to_read_them(name: str) -> None:
    build, shape = NETWORKS[name]
    model = seeded(build)
    example = torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    coupled = find_coupled(model, example)
    assert coupled
    generator = torch.Generator().manual_seed(2)
    removed, unread = {}, copy.deepcopy(model)
    for each in coupled:
        units = each.removable(torch.rand(each.units, generator=generator))[: each.units // 2]
        removed[each.root] = each.channels(units)
        stop_reading(unread, each, removed[each.root])
    network = without(model, example, removed)
    inputs = torch.randn(3, *shape, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(network(inputs), unread(inputs), rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in model.parameters())
    rebuilt = copy.deepcopy(model)
    restructure(rebuilt, smaller_layers(model, network))
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(rebuilt(inputs), network(inputs))


def stop_reading(model: nn.Module, coupled: Coupled, channels: list[int]) -> None:
    """Zero the weights by which other layers read channels."""
    for name, (own, root) in coupled.consumers.items():
        layer = model.get_submodule(name)
        weight, groups = layer.get_parameter("weight"), int(getattr(layer, "groups", 1))
        for index in [i for i, r in zip(own, root, strict=True) if r in channels]:
            group, local = divmod(index, weight.shape[1])
            rows = len(weight) // groups
            with torch.no_grad():
                weight[group * rows : (group + 1) * rows, local] = 0


def test_channels_of_the_outputs_and_of_padded_shortcuts_stay() -> None:
    model = seeded(NETWORKS["resnet20"][0])
    found = find_coupled(model, torch.randn(1, 3, 32, 32, dtype=torch.float64))
    assert {each.root for each in found} == {f"layer{i}.{j}.conv1" for i in (1, 2, 3) for j in range(3)}


def test_a_grouped_convolution_loses_the_same_channels_of_every_group() -> None:
    found = {each.root: each for each in find_coupled(zoo(), images())}
    assert (found["grouped"].units, found["grouped"].together) == (12, 2)
    assert found["grouped"].channels([0, 5]) == [0, 5, 12, 17]
    assert found["grouped"].per_unit(torch.arange(24.0)).tolist() == [12.0 + 2 * i for i in range(12)]


def test_layers_that_a_recipe_cannot_tell_of_keep_their_channels() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    assert [each.root for each in find_coupled(model, torch.randn(1, 1, 4, 4))] == ["2"]


def test_a_network_that_cannot_be_traced_is_one_sentence() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                y: Tensor = self.layer(x)
            raise NotImplementedError("no operator for this device")
            return y

    with pytest.raises(LrsearchError, match=r"torch-pruning cannot trace this network .*: no operator"):
        find_coupled(Detached(), torch.randn(1, 4))


def test_the_dense_network_stays_as_it_was_and_modes_are_kept() -> None:
    model = seeded(Joined).train()
    model.norm.eval()  # type: ignore[operator, union-attr]
    model.left.weight.requires_grad_(False)  # type: ignore[operator, union-attr]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    example = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    random_state = torch.get_rng_state()
    network = without(model, example, {each.root: each.channels([0]) for each in find_coupled(model, example)})
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in [*model.parameters(), *network.parameters()])
    assert [m.training for m in network.modules()] == [m.training for m in model.modules()]
    assert not network.get_parameter("left.weight").requires_grad
