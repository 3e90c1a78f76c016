"""Networks against the parameter and multiply-add counts that papers give for them."""

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


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [
        # He et al. 2019, "Filter Pruning via Geometric Median", tables 1 and 2, which count convolutions alone.
        ("resnet20", 4.06e7),
        ("resnet32", 6.89e7),
        ("resnet56", 1.25e8),
        ("resnet110", 2.53e8),
        # Li et al. 2017, table 1.
        ("vgg16_cifar", 3.13e8),
    ],
)
def test_multiply_adds_are_those_published(name: str, multiply_adds: float) -> None:
    shape = input_shape(name)
    assert shape is not None
    flops = count_cost(build_model({"name": name}), torch.zeros(1, *shape)).flops
    assert flops is not None and flops / 2 == pytest.approx(multiply_adds, rel=5e-3)


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
