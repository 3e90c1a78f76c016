"""``compress`` for any module, and the pair of files that brings its result back."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lrsearch
from lrsearch.data import load_data
from lrsearch.errors import BudgetUnreachableError, LrsearchError
from lrsearch.factorize.pruned import pruned
from lrsearch.measure.cost import count_cost
from lrsearch.models import build_model


class OwnNetwork(nn.Module):
    """A user's class: a strided convolution, a depthwise one, two heads that share nothing with our models."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.body = nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32, 40)
        self.tail = nn.Linear(40, 5)

    def forward(self, x):
        x = self.body(self.depthwise(self.norm(self.stem(x)).relu())).relu().mean((2, 3))
        return self.tail(self.head(x).relu())


@pytest.fixture
def network():
    torch.manual_seed(0)
    return OwnNetwork().eval()


@pytest.fixture
def loader():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(64, 3, 12, 12, generator=generator) * 3 + 1
    return DataLoader(TensorDataset(images, torch.zeros(64, dtype=torch.long)), batch_size=16)


@pytest.mark.parametrize("method", ["alds", "tucker"])
@pytest.mark.parametrize("resource", ["params", "flops"])
def test_own_module_is_compressed_within_the_budget_and_left_untouched(network, loader, method, resource):
    before = copy.deepcopy(network.state_dict())

    result = lrsearch.compress(network, method=method, budget={resource: 0.6}, data=loader)

    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    example = torch.zeros(1, 3, 12, 12)
    dense, small = count_cost(network, example), count_cost(result.model, example)
    assert getattr(small, resource) <= 0.6 * getattr(dense, resource)
    assert (result.report["params"], result.report["flops"]) == (small.params, small.flops)
    assert result.report["cr_p"] == pytest.approx(100 * (1 - small.params / dense.params))
    assert set(result.recipe.layers) == {"stem", "depthwise", "body", "head", "tail"}


def test_batch_norm_follows_what_compression_changed_on_the_data_unless_told_otherwise(network, loader):
    budget = {"params": 0.6}
    with_data = lrsearch.compress(network, "svd", budget=budget, data=loader)
    left_alone = lrsearch.compress(network, "svd", budget=budget, data=loader, recalibrate=False)
    without_data = lrsearch.compress(network, "svd", budget=budget)

    assert [r.report["recalibrated"] for r in (with_data, left_alone, without_data)] == [True, False, False]
    inputs = torch.cat([images for images, _ in loader])
    shift = (with_data.model.stem(inputs) - network.stem(inputs)).mean((0, 2, 3))
    assert shift.abs().max() > 1e-3
    expected = network.norm.running_mean + shift
    torch.testing.assert_close(with_data.model.norm.running_mean, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(left_alone.model.norm.running_mean, network.norm.running_mean)


def test_splits_are_taken_as_data():
    splits = load_data({"name": "digits"})
    model = lrsearch.models.build_model({"name": "digits_resnet", "width": 8})

    result = lrsearch.compress(model, budget={"flops": 0.5}, data=splits)

    assert result.report["cr_f"] >= 50 and result.report["recalibrated"]


def test_flops_need_an_input(network):
    with pytest.raises(LrsearchError, match=r"budget\.flops needs an example input"):
        lrsearch.compress(network, budget={"flops": 0.5})
    assert lrsearch.compress(network, budget={"params": 0.5}).report["flops"] is None


def test_unreachable_budget_carries_the_smallest(network):
    with pytest.raises(BudgetUnreachableError) as caught:
        lrsearch.compress(network, budget={"params": 0.01})

    smallest = caught.value.smallest
    result = lrsearch.compress(network, budget={"params": smallest})
    assert count_cost(result.model, None).params <= smallest * count_cost(network, None).params


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "aldss"}, ["aldss", "'alds'"]),
        ({"budget": {"parms": 0.5}}, ["parms", "'params'"]),
        ({"budget": {"params": 2}}, ["alds.budget.params", "2"]),
        ({"budget": {}}, ["alds.budget", "at least one"]),
        ({"max_subspace": 2}, ["max_subspace", "'max_subspaces'"]),
        ({"data": []}, ["no batch"]),
    ],
)
def test_mistakes_are_one_sentence(network, arguments, words):
    with pytest.raises(LrsearchError) as caught:
        lrsearch.compress(network, **arguments)

    for word in words:
        assert word in str(caught.value)


def test_saved_pair_rebuilds_the_network(network, loader, tmp_path):
    result = lrsearch.compress(network, budget={"params": 0.5}, data=loader)
    result.save(tmp_path / "small")

    again = lrsearch.rebuild(tmp_path / "small", model=network)

    images = torch.randn(4, 3, 12, 12)
    torch.testing.assert_close(again(images), result.model(images), rtol=0, atol=0)
    assert not again.training


def test_recipe_that_names_its_architecture_needs_no_model(tmp_path):
    config = {"name": "digits_mlp", "width": 32}
    model = lrsearch.models.build_model(config)
    result = lrsearch.compress(model, budget={"params": 0.5}, architecture=config)
    result.save(tmp_path / "small")

    again = lrsearch.rebuild(tmp_path / "small")

    images = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(again(images), result.model(images), rtol=0, atol=0)


def test_tied_weights_survive(tmp_path):
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 40), nn.Linear(40, 16), nn.Linear(16, 16))
    model[3].weight = model[0].weight
    result = lrsearch.compress(model, budget={"params": 0.8})
    result.save(tmp_path / "small")

    again = lrsearch.rebuild(tmp_path / "small", model=model)

    torch.testing.assert_close(again(torch.ones(1, 16)), result.model(torch.ones(1, 16)))
    assert result.recipe.layers["0"].kind == "dense" and "shares" in result.recipe.layers["0"].reason


class TestDamage:
    @pytest.fixture
    def folder(self, network, tmp_path):
        lrsearch.compress(network, budget={"params": 0.5}).save(tmp_path)
        return tmp_path

    def refused(self, folder, network):
        with pytest.raises(LrsearchError) as caught:
            lrsearch.rebuild(folder, model=network)
        return str(caught.value)

    def test_no_model_for_a_recipe_without_architecture(self, folder):
        assert "names no architecture" in self.refused(folder, None)

    def test_recipe_that_is_no_recipe(self, folder, network):
        (folder / "recipe.json").write_text('{"method": "alds", "layers": {"stem": {"kind": "magic"}}}')
        assert "layers.stem.kind" in self.refused(folder, network)

    def test_missing_weights(self, folder, network):
        (folder / "weights.safetensors").unlink()
        assert "weights.safetensors" in self.refused(folder, network)

    def test_weights_that_lack_a_key(self, folder, network):
        state = load_file(folder / "weights.safetensors")
        del state["norm.bias"]
        save_file(state, folder / "weights.safetensors")
        assert "lacks key norm.bias" in self.refused(folder, network)

    def test_weights_with_an_unknown_key(self, folder, network):
        state = load_file(folder / "weights.safetensors") | {"extra": torch.ones(1)}
        save_file(state, folder / "weights.safetensors")
        assert "unknown key extra" in self.refused(folder, network)

    def test_weights_of_another_shape(self, folder, network):
        state = load_file(folder / "weights.safetensors") | {"norm.bias": torch.ones(7)}
        save_file(state, folder / "weights.safetensors")
        assert "norm.bias has shape (7,), expected (16,)" in self.refused(folder, network)

    def test_recipe_of_another_network(self, folder):
        assert "stem" in self.refused(folder, nn.Sequential(nn.Linear(3, 3)))


def test_recipe_on_other_weights_is_their_best_approximation_at_its_ranks(network):
    recipe = lrsearch.compress(network, "svd", {"params": 0.5}).recipe
    torch.manual_seed(1)
    other = OwnNetwork().eval()

    applied = lrsearch.apply_recipe(recipe, other)

    assert applied.recipe == recipe and applied.report["cr_p"] >= 50
    rank = recipe.layers["head"].ranks[0]
    u, s, v = torch.linalg.svd(other.head.weight.double())
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    first, second = applied.model.head
    torch.testing.assert_close((second.weight @ first.weight).double(), best, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second.bias, other.head.bias)


@pytest.mark.parametrize("method", ["alds_output", "pca", "pfp", "tucker"])
def test_recipe_on_the_same_weights_and_data_is_what_compress_made(method):
    torch.manual_seed(0)
    model = build_model({"name": "digits_resnet", "width": 8})
    splits = load_data({"name": "digits"})
    made = lrsearch.compress(model, method, {"params": 0.5}, splits)

    applied = lrsearch.apply_recipe(made.recipe, model, splits)

    assert applied.report["recalibrated"]
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(applied.model(x), made.model(x), rtol=1e-5, atol=1e-5)


def test_recipe_that_cannot_be_applied_says_why(network):
    recipe = lrsearch.compress(network, "svd", {"params": 0.5}).recipe
    higher = recipe.layers["head"].model_copy(update={"ranks": (99,)})

    with pytest.raises(LrsearchError, match="it has no layer 'stem'"):
        lrsearch.apply_recipe(recipe, nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(LrsearchError, match=r"ranks are \(99,\), expected 1 equal ranks of 1 to 32"):
        lrsearch.apply_recipe(recipe.model_copy(update={"layers": {"head": higher}}), network)
    merged = recipe.model_copy(update={"method": "tucker", "layers": {"body": pruned(network.body)}})
    with pytest.raises(LrsearchError, match="how many channels layer 'body' keeps but not which"):
        lrsearch.apply_recipe(merged, network)
