from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, weight_norm

from lrsearch.errors import LrsearchError
from lrsearch.factorize import Call, LayerShape, find_layers


class OwnForward(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Reads(nn.Module):
    """Uses its second layer's weight without calling it."""

    def __init__(self, use: Callable[["Reads", Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, self.first(x))


def shared_weight() -> nn.Module:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    assert isinstance(model[0], nn.Embedding)
    assert isinstance(model[1], nn.Linear)
    model[1].weight = model[0].weight
    return model


def twice_in_place() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


def hooked() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda *_: None)
    return nn.Sequential(layer)


def pruned() -> nn.Module:
    layer = nn.Linear(4, 4)
    prune.random_unstructured(layer, "weight", amount=0.5)  # type: ignore[no-untyped-call]
    return nn.Sequential(layer)


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4))), "0", "computed from other"),
        (nn.Sequential(weight_norm(nn.Linear(4, 4))), "0", "computed from other"),
        (pruned(), "0", "computed from other"),
        (nn.Sequential(nn.LazyLinear(4)), "0", "no shape yet"),
        (nn.Linear(4, 4), "", "whole network"),
        (twice_in_place(), "0", "several places"),
        (shared_weight(), "1", "shares a parameter"),
        (nn.Sequential(OwnForward(4, 4)), "0", "OwnForward"),
        (hooked(), "0", "hooks"),
        (nn.Sequential(nn.MultiheadAttention(4, 2)), "0.out_proj", "MultiheadAttention"),
        (nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8)), "0.linear1", "TransformerEncoderLayer"),
    ],
)
def test_what_cannot_be_replaced_stays_dense_with_its_reason(model: nn.Module, name: str, reason: str) -> None:
    layers, dense = find_layers(model)
    assert name not in layers
    assert reason in dense[name]


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (lambda model, x: x, "not called"),
        (lambda model, x: functional.linear(x, model.second.weight), "otherwise than by calling"),
        (lambda model, x: model.second(x) + model.second.bias, "otherwise than by calling"),
        (lambda model, x: model.second(x.to(model.second.weight.dtype)), "otherwise than by calling"),
        (lambda model, x: torch.cat([x @ model.second.weight, model.second(x)]), "otherwise than by calling"),
    ],
)
def test_a_forward_pass_shows_which_layers_are_not_simply_called(
    use: Callable[[Reads, Tensor], Tensor], reason: str
) -> None:
    layers, dense = find_layers(Reads(use), torch.randn(1, 4))
    assert list(layers) == ["first"]
    assert reason in dense["second"]


def test_fused_attention_is_recognised_by_its_use_of_the_weights() -> None:
    """Without the rule for torch's own attention, which does not need an example input."""

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mapped, self.qkv, self.out = nn.Linear(4, 4), nn.Linear(4, 12), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.mapped(x)
            mixed, _ = functional.multi_head_attention_forward(
                y, y, y, 4, 2, self.qkv.weight, self.qkv.bias, None, None, False, 0.0, self.out.weight, self.out.bias
            )
            return mixed

    layers, dense = find_layers(Fused(), torch.randn(3, 1, 4))
    assert list(layers) == ["mapped"]
    assert set(dense) == {"qkv", "out"}


def test_shapes_know_their_calls() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 6, (3, 5), stride=2, groups=2), nn.Flatten(2), nn.Linear(9, 3), nn.Linear(3, 4, bias=False)
    )
    layers, dense = find_layers(model, torch.randn(1, 2, 7, 9))
    rows = (Call(6, (1, 1), (1, 1)),)
    assert dense == {}
    assert layers == {
        "0": LayerShape(6, 2, (3, 5), 2, (Call(1, (7, 9), (3, 3)),)),
        "2": LayerShape(3, 9, calls=rows),
        "3": LayerShape(4, 3, calls=rows),
    }


def test_looking_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(64, 3))
    model.train()
    model[1].eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random_state, attributes = torch.get_rng_state(), {name: set(vars(m)) for name, m in model.named_modules()}
    find_layers(model, torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0)))
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {name: set(vars(m)) for name, m in model.named_modules()} == attributes


def test_a_failing_forward_pass_is_one_sentence_and_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Linear(4, 4)).train()
    with pytest.raises(LrsearchError, match=r"example input of shape \(1, 5\)"):
        find_layers(model, torch.randn(1, 5))
    assert model.training
    assert "forward" not in vars(model[0])
