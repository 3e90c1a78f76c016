import pytest
import torch
from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import copy_with, factorize_layer, find_layers, replace_layers, restructure
from lrsearch.recipe import Factorization

SVD = Factorization(kind="svd", ranks=(2, 2), groups=2)


def network() -> nn.Module:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(nn.Conv2d(2, 4, 3), block, nn.Flatten(), nn.Linear(64, 8)).eval()


def test_a_copy_shares_nothing_but_what_it_was_given() -> None:
    model = network()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    layer = factorize_layer(model.get_submodule("1.0"), SVD)
    small = copy_with(model, {"1.0": layer})
    assert small.get_submodule("1.0") is layer
    for parameter in small.parameters():
        with torch.no_grad():
            parameter.zero_()
    assert isinstance(model.get_submodule("1.0"), nn.Conv2d)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_restructured_network_takes_the_state_of_the_factorized_one() -> None:
    model, x = network(), torch.randn(3, 2, 6, 6)
    layers = {"0": Factorization(kind="dense"), "1.0": SVD, "3": SVD}
    small = copy_with(model, {name: factorize_layer(model.get_submodule(name), layers[name]) for name in ("1.0", "3")})
    rebuilt = network()
    restructure(rebuilt, layers)
    assert list(rebuilt.state_dict()) == list(small.state_dict())
    rebuilt.load_state_dict(small.state_dict())
    assert torch.equal(rebuilt(x), small(x))


def test_replacing_in_place_keeps_the_order_of_a_sequence() -> None:
    model = network()
    replace_layers(model, {"1.0": nn.Identity()})
    assert [name for name, _ in model.named_children()] == ["0", "1", "2", "3"]
    assert isinstance(model.get_submodule("1.0"), nn.Identity)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({"1.7": SVD}, "no layer '1.7'"),
        ({"0": Factorization(kind="svd", ranks=(9,))}, "layer '0'.*ranks"),
        ({"2": SVD}, "layer '2'.*Flatten"),
    ],
)
def test_a_recipe_of_another_network_is_refused_and_changes_nothing(
    layers: dict[str, Factorization], expected: str
) -> None:
    model = network()
    with pytest.raises(LrsearchError, match=expected):
        restructure(model, {"3": SVD, **layers})
    assert list(model.state_dict()) == list(network().state_dict())


def test_names_are_those_that_find_layers_gives() -> None:
    model = network()
    found, _ = find_layers(model)
    assert list(found) == ["0", "1.0", "3"]
    restructure(model, dict.fromkeys(found, SVD))
