"""Attention with projections of its own against torch's packed one."""

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrsearch import compress, rebuild
from lrsearch.factorize.layers import find_layers
from lrsearch.models import build_model, load_weights, separate_projections
from lrsearch.models.attention import SelfAttention

SMALL = {"image_size": 16, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 48}


def vision_transformer() -> nn.Module:
    """Torchvision's own, with weights that are nowhere zero."""
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(**SMALL, num_classes=5).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@given(
    heads=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    images=st.integers(1, 3),
    lengths=st.tuples(*[st.integers(1, 6)] * 2),
)
@settings(max_examples=30, deadline=None)
def test_outputs_and_gradients_are_those_of_the_packed_module(
    heads: int, bias: bool, images: int, lengths: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(8, heads, bias=bias, batch_first=True, dtype=torch.float64)
    ours = SelfAttention(packed)
    queries, keys, values = (
        torch.randn(images, length, 8, dtype=torch.float64, requires_grad=True) for length in (*lengths, lengths[1])
    )
    outcomes = []
    for module in (packed, ours):
        output, weights = module(queries, keys, values, need_weights=False)
        assert weights is None
        outcomes.append((output, *torch.autograd.grad(output.square().sum(), [queries, keys, values])))
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other)


def test_a_vision_transformer_with_separate_projections_answers_the_same() -> None:
    packed, inputs = vision_transformer(), torch.randn(3, 3, 16, 16)
    separate = separate_projections(copy.deepcopy(packed))
    assert not any(isinstance(module, nn.MultiheadAttention) for module in separate.modules())
    torch.testing.assert_close(separate(inputs), packed(inputs), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in separate.parameters()) == sum(p.numel() for p in packed.parameters())


def test_attention_that_does_more_stays_as_it_is() -> None:
    kinds = ({}, {"batch_first": True, "kdim": 4}, {"batch_first": True, "add_bias_kv": True})
    model = nn.ModuleList(nn.MultiheadAttention(8, 2, **kind) for kind in kinds)
    assert all(type(module) is nn.MultiheadAttention for module in separate_projections(model))


def test_all_projections_of_a_named_transformer_can_be_compressed(tmp_path: Path) -> None:
    model = build_model({"name": "vit_b_16", "image_size": 32, "num_classes": 5})
    layers, dense = find_layers(model, torch.zeros(1, 3, 32, 32))
    assert not dense
    assert len(layers) == 12 * (4 + 2) + 2  # four projections and a perceptron of two layers each; patches and head
    assert {"query", "key", "value", "out_proj"} <= {name.rpartition(".")[2] for name in layers}


def test_a_compressed_transformer_is_rebuilt_and_near_full_rank_answers_the_same(tmp_path: Path) -> None:
    dense = separate_projections(vision_transformer())
    inputs = torch.randn(4, 3, 16, 16)
    found = compress(dense, "svd", {"params": 0.7}, example_input=inputs[:1])
    projections = [name for name in found.recipe.layers if name.endswith(("query", "key", "value", "out_proj"))]
    assert {found.recipe.layers[name].kind for name in projections} == {"svd"} and len(projections) == 8
    found.save(tmp_path)
    torch.testing.assert_close(rebuild(tmp_path, model=dense)(inputs), found.model(inputs))
    expected = copy.deepcopy(dense)
    for name, factorization in found.recipe.layers.items():
        if factorization.kind == "svd":
            weight = expected.get_submodule(name).get_parameter("weight").data
            left, values, right = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
            values[factorization.ranks[0] :] = 0
            weight.copy_(((left * values) @ right).view_as(weight))
    torch.testing.assert_close(found.model(inputs), expected(inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_weights_of_packed_attention_load(prefix: str, tmp_path: Path) -> None:
    packed = vision_transformer()
    torch.save({prefix + key: value for key, value in packed.state_dict().items()}, tmp_path / "packed.pt")
    model = separate_projections(torchvision.models.VisionTransformer(**SMALL, num_classes=5)).eval()
    load_weights(model, tmp_path / "packed.pt")
    inputs = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(inputs), packed(inputs), rtol=1e-4, atol=1e-5)
    torch.save(model.state_dict(), tmp_path / "separate.pt")
    again = separate_projections(torchvision.models.VisionTransformer(**SMALL, num_classes=5)).eval()
    load_weights(again, tmp_path / "separate.pt")
    assert torch.equal(again(inputs), model(inputs))
