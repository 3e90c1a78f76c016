import pytest
import torchvision
from torch import Tensor, nn

from lrsearch.factorize.shortcuts import find_shortcuts
from lrsearch.models import build_model


@pytest.mark.parametrize(
    ("name", "part", "count"),
    [("resnet18", "downsample", 3), ("resnet50", "downsample", 4), ("regnet_y_400mf", "proj", 4), ("vgg11_bn", "", 0)],
)
def test_those_of_known_networks_are_found_by_what_they_do(name: str, part: str, count: int) -> None:
    model = torchvision.models.get_model(name, weights=None)
    convs = [key for key, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    found = find_shortcuts(model)
    assert len(found) == count and found == [key for key in convs if part and part in key]


def test_networks_of_our_own() -> None:
    assert find_shortcuts(build_model({"name": "digits_resnet"})) == ["4.downsample.0", "5.downsample.0"]
    assert len(find_shortcuts(build_model({"name": "digits_resnet", "bottlenecks": True}))) == 3
    assert find_shortcuts(build_model({"name": "resnet20"})) == []


@pytest.mark.parametrize("convs", [0, 1])
def test_a_convolution_beside_nothing_longer_is_no_shortcut(convs: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(4, 4, 3, padding=1)
            self.other = nn.Conv2d(4, 4, 1) if convs else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = x.relu()
            return self.one(x) + self.other(x)

    assert find_shortcuts(Net()) == []


def test_none_are_found_where_the_forward_pass_decides_by_its_input() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    assert find_shortcuts(Net()) == []
