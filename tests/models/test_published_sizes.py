"""Networks against the parameter and multiply-add counts that papers give for them."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from lrsearch.measure.cost import count_cost
from lrsearch.models import build_model, input_shape
from lrsearch.models.densenet import densenet_cifar
from lrsearch.models.wide_resnet import WideResNet


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        # He et al. 2016, table 6.
        ("resnet20", "0.27"),
        ("resnet32", "0.46"),
        ("resnet44", "0.66"),
        ("resnet56", "0.85"),
        ("resnet110", "1.7"),
        # Zagoruyko & Komodakis 2016.
        ("wrn16_8", "11.0"),
        ("wrn28_10", "36.5"),
        # Li et al. 2017, table 1; Han et al. 2015, table 1.
        ("vgg16_cifar", "15"),
        ("lenet5", "0.431"),
    ],
)
def test_parameters_are_those_published(name: str, millions: str) -> None:
    with torch.device("meta"):
        count = parameters(build_model({"name": name})) / 1e6
    digits = len(millions.partition(".")[2])
    assert f"{count:.{digits}f}" == millions


def multiply_adds(build: Callable[[], nn.Module], *shape: int) -> float:
    with torch.device("meta"):
        flops = count_cost(build(), torch.zeros(1, *shape)).flops
    assert flops is not None
    return flops / 2


def multiply_adds_of(name: str) -> float:
    shape = input_shape(name)
    assert shape is not None
    return multiply_adds(lambda: build_model({"name": name}), *shape)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # He et al. 2019, "Filter Pruning via Geometric Median", tables 1 and 2, which count convolutions alone.
        ("resnet20", 4.06e7),
        ("resnet32", 6.89e7),
        ("resnet56", 1.25e8),
        ("resnet110", 2.53e8),
        # Li et al. 2017, table 1.
        ("vgg16_cifar", 3.13e8),
        # Han et al. 2015, "Learning both Weights and Connections", table 4: 4586K operations.
        ("lenet5", 2.293e6),
        # The model table of the collection imgclsmob, which counts batch norm too.
        ("wrn28_10", 5.24698e9),
    ],
)
def test_multiply_adds_are_those_published(name: str, published: float) -> None:
    assert multiply_adds_of(name) == pytest.approx(published, rel=5e-3)


@pytest.mark.parametrize(
    ("build", "published"),
    [
        # imgclsmob, as above.
        (lambda: WideResNet(2, 10, 10), 2.41404e9),
        (lambda: WideResNet(6, 8, 10), 5.1769e9),
        # Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming", table 1, two for each.
        (lambda: densenet_cifar(40), 5.33e8 / 2),
    ],
    ids=["WRN-16-10", "WRN-40-8", "DenseNet-40"],
)
def test_multiply_adds_of_siblings_are_those_published(build: Callable[[], nn.Module], published: float) -> None:
    """Of WRN-16-8 and DenseNet22, for which no publication gives them."""
    assert multiply_adds(build, 3, 32, 32) == pytest.approx(published, rel=1e-2)


def residual(blocks: int) -> int:
    """Halving the side and doubling the channels leaves a convolution's cost as it was; the first of a stage has half.

    Convolutions of 3x3 with 16 channels at 32x32, three stages of them; before them one of 3 channels.
    """
    return 9 * 32**2 * (3 * 16 + (3 * 2 * blocks - 1) * 16**2) + 64 * 10


def wide(blocks: int, width: int) -> int:
    """Each stage: a first convolution and a 1x1 shortcut from the channels before, then square convolutions."""
    channels = [16, 16 * width, 32 * width, 64 * width]
    stages = (
        (9 * before * after + before * after + 9 * (2 * blocks - 1) * after**2) * side**2
        for before, after, side in zip(channels, channels[1:], (32, 16, 8), strict=False)
    )
    return 9 * 3 * 16 * 32**2 + sum(stages) + 64 * width * 10


def densely_connected(layers: int, growth: int) -> int:
    """Each block: layer i reads 16 + (what all before grew) channels; between blocks a square 1x1 convolution."""
    ends = [16 + block * layers * growth for block in range(4)]
    inside = (
        9 * growth * sum(start + layer * growth for layer in range(layers)) * side**2
        for start, side in zip(ends, (32, 16, 8), strict=False)
    )
    return 9 * 3 * 16 * 32**2 + sum(inside) + ends[1] ** 2 * 32**2 + ends[2] ** 2 * 16**2 + ends[3] * 10


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        *((f"resnet{6 * blocks + 2}", residual(blocks)) for blocks in (3, 5, 7, 9, 18)),
        ("wrn16_8", wide(2, 8)),
        ("wrn28_10", wide(4, 10)),
        ("densenet22", densely_connected(6, 12)),
        ("lenet5", 24**2 * 25 * 20 + 8**2 * 25 * 20 * 50 + 800 * 500 + 500 * 10),
        ("mnist_mlp", 784 * 500 + 3 * 500**2 + 500 * 10),
    ],
)
def test_multiply_adds_are_those_counted_by_hand(name: str, counted: int) -> None:
    """Exactly; for ResNet-44, WRN-16-8, DenseNet22 and the perceptrons it stands for a published count."""
    assert multiply_adds_of(name) == counted


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, 224) for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")),
        *((name, 224) for name in ("alexnet", "vgg16", "mobilenet_v2", "vit_b_16")),
        ("deeplabv3_resnet50", 520),
    ],
)
def test_torchvisions_networks_have_the_sizes_of_its_table(name: str, size: int) -> None:
    """Networks of ImageNet and of VOC; the table counts the segmenters with their auxiliary head."""
    segments = size == 520
    table = torchvision.models.get_model_weights(name).DEFAULT.meta
    with torch.device("meta"):
        model = build_model({"name": name, **({"aux_loss": True} if segments else {})})
        cost = count_cost(model, torch.zeros(1, 3, size, size))
    assert cost.params == table["num_params"]
    assert cost.flops is not None and f"{cost.flops / 2e9:.3f}" == f"{table['_ops']:.3f}"


@pytest.mark.parametrize(
    ("name", "blocks", "option_b"), [("resnet20", 3, 272_474), ("resnet56", 9, 855_770), ("resnet110", 18, 1_730_714)]
)
def test_option_b_adds_two_convolutions_with_batch_norm(name: str, blocks: int, option_b: int) -> None:
    """He et al. 2016: projections where the size changes, here from 16 to 32 and from 32 to 64 channels."""
    plain, projected = (build_model({"name": name, "option": option}) for option in "AB")
    assert parameters(projected) == option_b
    assert option_b - parameters(plain) == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert len(plain.get_submodule("layer1")) == blocks
    assert projected.state_dict().keys() - plain.state_dict().keys() == {
        f"layer{stage}.0.shortcut.{key}"
        for stage in (2, 3)
        for key in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked")
    }


@pytest.mark.parametrize(("depth", "millions"), [(40, "1.0"), (100, "7.0")])
def test_dense_networks_grow_as_published(depth: int, millions: str) -> None:
    """Huang et al. 2017, table 2, growth rate 12."""
    assert f"{parameters(densenet_cifar(depth)) / 1e6:.1f}" == millions


@pytest.mark.parametrize(
    ("depth", "width", "millions"), [(40, 1, "0.6"), (40, 2, "2.2"), (40, 4, "8.9"), (22, 8, "17.2")]
)
def test_wide_networks_grow_as_published(depth: int, width: int, millions: str) -> None:
    """Zagoruyko & Komodakis 2016."""
    assert f"{parameters(WideResNet((depth - 4) // 6, width, 10)) / 1e6:.1f}" == millions


@pytest.mark.parametrize("width", [500, 784])
def test_perceptrons_have_five_layers_of_dlrts_widths(width: int) -> None:
    model = build_model({"name": "mnist_mlp", "width": width})
    matrices = [tuple(parameter.shape) for parameter in model.parameters() if parameter.ndim > 1]
    assert matrices == [(width, 784), *[(width, width)] * 3, (10, width)]


@pytest.mark.parametrize("name", ["resnet32", "vgg16_cifar", "densenet22", "wrn16_8", "lenet5", "mnist_mlp"])
def test_networks_map_their_inputs_to_as_many_logits_as_asked(name: str) -> None:
    shape = input_shape(name)
    assert shape is not None
    model = build_model({"name": name, "num_classes": 7})
    assert model(torch.randn(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize(("depth", "option"), [(20, "A"), (20, "B")])
def test_block_of_the_paper_written_out(depth: int, option: str) -> None:
    """The first block that changes shape, against its formula."""
    torch.manual_seed(0)
    model = build_model({"name": f"resnet{depth}", "option": option})
    block, inputs = model.get_submodule("layer2.0"), torch.randn(2, 16, 8, 8)
    residual = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(inputs)))))
    if option == "A":
        shortcut = torch.zeros(2, 32, 4, 4)
        shortcut[:, 8:24] = inputs[:, :, ::2, ::2]
    else:
        shortcut = block.shortcut[1](block.shortcut[0](inputs))
    torch.testing.assert_close(block(inputs), torch.relu(residual + shortcut))
