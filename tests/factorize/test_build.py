from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrsearch.factorize import build_layer, factorize_layer, layer_cost
from lrsearch.recipe import Factorization
from tests.factorize.random_layers import convolutions, factorized, random_input, shape_of

SVD = Factorization(kind="svd", ranks=(2, 2), groups=2)


@settings(max_examples=150, deadline=None)
@given(factorized(full_rank=True))
def test_full_rank_reproduces_the_layer_whatever_its_kind(case: tuple[nn.Module, Factorization]) -> None:
    layer, factorization = case
    x = random_input(layer, batch=2)
    torch.testing.assert_close(factorize_layer(layer, factorization)(x), layer(x), rtol=1e-8, atol=1e-8)


@settings(max_examples=100, deadline=None)
@given(factorized())
def test_a_low_rank_chain_is_the_convolution_with_the_approximated_weight(
    case: tuple[nn.Module, Factorization],
) -> None:
    """The chain is linear, so an impulse response reads off its effective weight; it is compared by outputs."""
    layer, factorization = case
    built = factorize_layer(layer, factorization)
    probe = dense_equivalent(layer, built)
    x = random_input(layer, batch=2)
    torch.testing.assert_close(built(x), probe(x), rtol=1e-8, atol=1e-8)


def dense_equivalent(layer: nn.Module, built: nn.Module) -> nn.Module:
    """A dense layer whose weight is multiplied out from the stages' weights, by einsum over explicit groups."""
    assert isinstance(built, nn.Sequential)
    stages = [stage.get_parameter("weight").detach() for stage in built]
    groups = [int(getattr(stage, "groups", 1)) for stage in built]
    weights = [weight if weight.dim() == 4 else weight[:, :, None, None] for weight in stages]
    product = block_diagonal(weights[0], groups[0])
    for weight, count in zip(weights[1:], groups[1:], strict=True):
        full = block_diagonal(weight, count)
        product = torch.einsum("smhw,mcxy->schxwy", full, product).flatten(2, 3).flatten(3, 4)
    if isinstance(layer, nn.Linear):
        copy: nn.Module = nn.Linear(layer.in_features, layer.out_features, dtype=torch.float64)
        product = product[:, :, 0, 0]
    else:
        geometry: dict[str, Any] = {
            key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        }
        copy = nn.Conv2d(product.shape[1], product.shape[0], dtype=torch.float64, **geometry)
    with torch.no_grad():
        copy.get_parameter("weight").copy_(product)
        bias = layer._parameters["bias"]
        copy.get_parameter("bias").copy_(torch.zeros(len(product)) if bias is None else bias)
    return copy


def block_diagonal(weight: torch.Tensor, groups: int) -> torch.Tensor:
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    full = weight.new_zeros(outputs * groups, inputs * groups, *weight.shape[2:])
    for g in range(groups):
        full[g * outputs : (g + 1) * outputs, g * inputs : (g + 1) * inputs] = weight[g * outputs : (g + 1) * outputs]
    return full


@settings(max_examples=60, deadline=None)
@given(factorized(), st.booleans())
def test_built_structure_takes_the_factorized_weights(case: tuple[nn.Module, Factorization], training: bool) -> None:
    layer, factorization = case
    layer.train(training)
    full, empty = factorize_layer(layer, factorization), build_layer(layer, factorization)
    empty.load_state_dict(full.state_dict(), strict=True)
    x = random_input(layer)
    assert torch.equal(full(x), empty(x))
    assert [m.training for m in empty.modules()] == [training] * len(list(empty.modules()))


@given(factorized())
@settings(max_examples=60, deadline=None)
def test_stages_hold_as_many_weights_as_the_cost_says(case: tuple[nn.Module, Factorization]) -> None:
    layer, factorization = case
    weights = sum(p.numel() for n, p in build_layer(layer, factorization).named_parameters() if n.endswith("weight"))
    assert weights == layer_cost(shape_of(layer), factorization).params


def test_building_draws_no_random_number_and_leaves_the_layer_alone() -> None:
    layer = nn.Conv2d(4, 6, 3)
    before, state = layer.weight.clone(), torch.get_rng_state()
    factorize_layer(layer, SVD)
    build_layer(layer, SVD)
    assert torch.equal(layer.weight, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_device_dtype_and_frozenness_are_kept() -> None:
    layer = nn.Linear(4, 6, device="meta", dtype=torch.bfloat16)
    layer.weight.requires_grad_(False)
    built = build_layer(layer, SVD)
    parameters = dict(built.named_parameters())
    assert {p.device.type for p in parameters.values()} == {"meta"}
    assert {p.dtype for p in parameters.values()} == {torch.bfloat16}
    assert {n: p.requires_grad for n, p in parameters.items()} == {
        "0.weight": False,
        "1.weight": False,
        "1.bias": True,
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decomposed_in_single_precision(dtype: torch.dtype) -> None:
    layer = nn.Linear(8, 8, dtype=dtype)
    built = factorize_layer(layer, Factorization(kind="svd", ranks=(8,)))
    assert isinstance(built, nn.Sequential)
    first, second = (stage.get_parameter("weight").float() for stage in built)
    torch.testing.assert_close(second @ first, layer.weight.float(), rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_dense_stays_the_same_module() -> None:
    layer = nn.Conv2d(3, 4, 3)
    assert factorize_layer(layer, Factorization(kind="dense")) is layer
    assert build_layer(layer, Factorization(kind="dense")) is layer


@pytest.mark.parametrize(
    ("factorization", "expected"),
    [
        (Factorization(kind="svd", ranks=(1, 1, 1), groups=3), "divisor of 4"),
        (Factorization(kind="svd", ranks=(1, 2), groups=2), "2 equal ranks"),
        (Factorization(kind="svd", ranks=(7,)), "of 1 to 6"),
        (Factorization(kind="svd", ranks=()), "1 equal ranks"),
        (Factorization(kind="tucker2", ranks=(5, 6)), "at most 4 and 6"),
        (Factorization(kind="tucker2", ranks=(4,)), "two of at most 4 and 6"),
        (Factorization(kind="tt", ranks=(4, 7)), "at most 4 and 6"),
        (Factorization(kind="cp", ranks=(25,)), "one of 1 to 24"),
        (Factorization(kind="cp", ranks=(2, 2)), "one of 1 to 24"),
        (Factorization(kind="cp", ranks=(37,), scheme=1), "one of 1 to 36"),
        (Factorization(kind="cp", ranks=(2,), scheme=2), "expected 0 or 1 for cp"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(factorization: Factorization, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        factorize_layer(nn.Conv2d(4, 6, 3), factorization)


def test_only_what_can_be_factorized_is_taken() -> None:
    for convolutional in (Factorization(kind="tucker2", ranks=(1, 1)), Factorization(kind="cp", ranks=(1,))):
        with pytest.raises(ValueError, match="no kernel"):
            build_layer(nn.Linear(4, 4), convolutional)
    with pytest.raises(TypeError, match="ConvTranspose2d"):
        build_layer(nn.ConvTranspose2d(4, 4, 3), SVD)


@given(convolutions())
@settings(max_examples=40, deadline=None)
def test_unbatched_images_work_too(layer: nn.Conv2d) -> None:
    factorization = Factorization(kind="tucker2", ranks=(1, 1))
    built = factorize_layer(layer, factorization)
    x = random_input(layer)
    torch.testing.assert_close(built(x[0]), built(x)[0])
