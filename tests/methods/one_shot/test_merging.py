import copy
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import restructure
from lrsearch.factorize.bottlenecks import find_bottlenecks
from lrsearch.measure.cost import count_cost
from lrsearch.methods.base import Task
from lrsearch.methods.one_shot.merged_bottleneck import subspace
from lrsearch.methods.one_shot.merging import OUTSIDE
from lrsearch.recipe import Recipe
from tests.methods.zoo import collect, compress, steps


class Block(nn.Module):
    """A bottleneck of its own class, with functional ReLUs."""

    def __init__(self, channels: int, width: int, *, bias: bool = False, stride: int = 1) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1, bias=bias)
        self.norm_a = nn.BatchNorm2d(width)
        self.spatial = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=bias)
        self.norm_b = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, channels, 1, bias=bias)
        self.norm_c = nn.BatchNorm2d(channels)
        self.rectify = True

    def forward(self, x: Tensor) -> Tensor:
        y = self._act(self.norm_a(self.reduce(x)))
        y = self.norm_c(self.expand(self._act(self.norm_b(self.spatial(y)))))
        return y if self.spatial.stride != (1, 1) else y + x

    def _act(self, x: Tensor) -> Tensor:
        return torch.relu(x) if self.rectify else x


class Net(nn.Module):
    def __init__(self, *, rectify: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.first, self.second = Block(12, 8, bias=bias), Block(12, 8, bias=bias, stride=2)
        self.head = nn.Linear(12, 4)
        self.first.rectify = self.second.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(self.stem(x))).mean((2, 3)))
        return logits


def network(*, rectify: bool = True, bias: bool = False, rank: int | None = None) -> Net:
    """Seeded, batch norms with statistics of their own; ``rank``: of the k x k weights along both channel axes."""
    generator = torch.Generator().manual_seed(0)
    model = Net(rectify=rectify, bias=bias).eval()
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator)
            value.copy_(drawn.abs() + 0.5 if "running_var" in key else drawn / max(1, value[0].numel()) ** 0.5)
    if rank is not None:
        for block in (model.first, model.second):
            left, right = (torch.randn(8, rank, generator=generator) for _ in range(2))
            core = torch.randn(rank, rank, 3, 3, generator=generator)
            block.spatial.weight.data = torch.einsum("sr,rqhw,cq->schw", left, core, right) / 8
    return model


def images(batch: int = 6) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def task(*, data: bool) -> Task:
    batches = [(images(64), torch.zeros(64)), (images(32), torch.zeros(32))] if data else None
    return Task(example_input=images(1), calibration=batches)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("data", [False, True])
def test_merging_is_exact_for_kernels_of_low_rank_where_there_is_no_relu(bias: bool, data: bool) -> None:
    model = network(rectify=False, bias=bias, rank=4)
    merged = compress("tucker", {"merge": True, "alpha": 2}, model, task(data=data)).model.eval()
    assert count_cost(merged, None).params < count_cost(model, None).params
    torch.testing.assert_close(merged(images()), model(images()), rtol=1e-5, atol=1e-5)


def test_data_bring_the_merged_network_closer_where_there_are_relus() -> None:
    model = network()
    wanted, distances = model(images(64)), []
    for data in (False, True):
        merged = compress("tucker", {"merge": True}, model, task(data=data)).model.eval()
        distances.append((merged(images(64)) - wanted).norm())
    spread = (wanted - wanted.mean(0)).norm()
    assert distances[1] < 0.5 * distances[0] and distances[1] < 0.5 * spread


def test_calibrated_batch_norms_compute_the_same_with_the_statistics_of_the_calibration_batch() -> None:
    """One batch whose statistics the batch norms were given: training mode and eval mode agree inside the block."""
    model = network(rectify=False, rank=4)
    batch = images(64)
    given = Task(example_input=batch[:1], calibration=[(batch, torch.zeros(64))])
    merged = compress("tucker", {"merge": True}, model, given).model.eval()
    entered = merged.stem(batch)
    first, norm = merged.first.reduce, merged.first.norm_a
    expected = norm(first(entered))
    torch.testing.assert_close(norm.train()(first(entered)), expected, rtol=1e-3, atol=1e-3)


def test_as_many_layers_as_before_and_a_recipe_that_rebuilds_them(tmp_path: Path) -> None:
    model = network()
    compressed = compress("tucker", {"merge": True, "alpha": 2}, model, task(data=True))
    kinds = [type(module) for module in model.modules()]
    assert [type(module) for module in compressed.model.modules()] == kinds
    compressed.recipe.save(tmp_path / "recipe.json")
    recipe = Recipe.load(tmp_path / "recipe.json")
    assert recipe.layers["first.spatial"].ranks == (4, 4) and recipe.layers["first.norm_b"].ranks == (4,)
    assert recipe.layers["stem"].reason == recipe.layers["head"].reason == OUTSIDE
    rebuilt = network()
    restructure(rebuilt, recipe.layers)
    rebuilt.load_state_dict(compressed.model.state_dict())
    assert torch.equal(rebuilt.eval()(images()), compressed.model.eval()(images()))


def test_the_dense_network_is_left_as_it_was() -> None:
    model = network().train()
    state = copy.deepcopy(model.state_dict())
    merged = compress("tucker", {"merge": True}, model, task(data=True)).model
    assert model.training and all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not {id(p) for p in merged.parameters()} & {id(p) for p in model.parameters()}
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "blocks", "percent"),
    [("resnet50", 16, 51.55), ("resnet101", 33, 56.48), ("resnet152", 50, 58.20), ("wide_resnet50_2", 16, None)],
)
def test_bottlenecks_of_half_width_have_the_published_sizes(name: str, blocks: int, percent: float | None) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    found = find_bottlenecks(model)
    assert len(found) == blocks
    saved = 0
    for each in found:
        first, middle, last = (model.get_submodule(conv) for conv in each.convs)
        width = middle.out_channels
        saved += first.weight.numel() // 2 + last.weight.numel() // 2 + 3 * middle.weight.numel() // 4 + 2 * width
    if percent is not None:
        assert 100 * saved / count_cost(model, None).params == pytest.approx(percent, abs=0.005)


def test_a_merged_resnet50_has_the_published_size() -> None:
    model = torchvision.models.resnet50()
    small = restructured(model)
    assert 100 * (1 - count_cost(small, None).params / count_cost(model, None).params) == pytest.approx(
        51.55, abs=0.005
    )


def restructured(model: nn.Module) -> nn.Module:
    from lrsearch.recipe import Factorization

    network, forms = copy.deepcopy(model), {}
    for each in find_bottlenecks(model):
        first, middle, last = (model.get_submodule(conv) for conv in each.convs)
        half = middle.out_channels // 2
        channels = [(first.in_channels, half), (half, half), (half, last.out_channels), (half,), (half,)]
        for name, ranks in zip(each.convs + each.norms, channels, strict=True):
            forms[name] = Factorization(kind="pruned", ranks=ranks)
    restructure(network, forms)
    assert network.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 1000)
    return network


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vgg11_bn"])
def test_other_networks_have_no_bottleneck(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    assert find_bottlenecks(model) == []
    with pytest.raises(LrsearchError, match="merge is true, which needs bottlenecks"):
        compress("tucker", {"merge": True}, nn.Sequential(nn.Linear(4, 4)), Task())


def test_what_else_is_fed_by_a_layer_keeps_it_from_being_merged() -> None:
    class Branching(Block):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.norm_a(self.reduce(x)))
            z = self.norm_c(self.expand(torch.relu(self.norm_b(self.spatial(y)))))
            return z * y.mean()

    assert find_bottlenecks(Branching(12, 8)) == []
    (found,) = find_bottlenecks(Block(12, 8))
    assert found.convs == ("reduce", "spatial", "expand") and found.last_norm == "norm_c"
    assert found.rectified == (True, True)


def test_progress_is_told_to_the_end() -> None:
    for data in (False, True):
        seen, _ = collect(steps("tucker", {"merge": True}, network(), task(data=data)))
        assert [progress.done for progress in seen] == list(range(1, len(seen) + 1))
        assert {progress.total for progress in seen} == {len(seen)}


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 8), st.integers(1, 8), st.integers(0, 1000))
def test_a_subspace_is_the_best_there_is_and_some_channels_stand_for_themselves(w: int, rank: int, seed: int) -> None:
    rank = min(rank, w)
    generator = torch.Generator().manual_seed(seed)
    weight, root = (torch.randn(10, w, generator=generator, dtype=torch.float64) for _ in range(2))
    moment = root.mT @ root
    found = subspace(weight, moment, rank)
    projected = weight - weight @ found.decode @ found.encode
    error = torch.trace(projected @ moment @ projected.mT)
    lost = torch.linalg.svdvals(weight @ torch.linalg.cholesky(moment))[rank:].square().sum()
    assert error <= lost * (1 + 1e-3) + 1e-4 * torch.trace(weight @ moment @ weight.mT)
    torch.testing.assert_close(found.encode @ found.decode, torch.eye(rank, dtype=torch.float64))
    own = [column for column in range(w) if (found.encode[:, column].abs() > 1e-9).sum() == 1]
    assert len(own) >= rank
