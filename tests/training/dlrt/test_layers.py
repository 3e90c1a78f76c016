import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrsearch.factorize import factorize_layer
from lrsearch.factorize.layers import Layer
from lrsearch.recipe import Factorization
from lrsearch.training.dlrt.gradients import Gradients, Move, Tape
from lrsearch.training.dlrt.layers import low_rank
from tests.factorize.random_layers import layers, random_input, shape_of
from tests.training.dlrt.reference import dense_output, factors, gradient_of, product


def full_rank(layer: Layer) -> int:
    shape = shape_of(layer)
    return min(shape.out_per_group, shape.in_per_group * shape.kernel[0] * shape.kernel[1])


@settings(deadline=None, max_examples=60)
@given(layers(), st.data())
def test_a_layer_computes_what_its_truncated_weight_does(layer: Layer, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, full_rank(layer)))
    small, x = low_rank(layer, rank), random_input(layer, 2)
    truncated = factorize_layer(layer, Factorization(kind="svd", ranks=(rank,)))
    torch.testing.assert_close(small(x), truncated(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(small(x), dense_output(layer, small.weight(), x), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=80)
@given(layers(), st.data())
def test_gradients_of_k_l_s_and_bias_are_those_of_the_dense_weight(layer: Layer, data: st.DataObject) -> None:
    """Twice called, so that the gradients of several calls add up."""
    rank = data.draw(st.integers(1, full_rank(layer)))
    small, x, x2 = low_rank(layer, rank), random_input(layer, 2), random_input(layer, 3)
    u, s, v = factors(small)
    p, q = torch.randn_like(u), torch.randn_like(v)
    seen: list[torch.Tensor] = []

    def integrate(gradients: Gradients) -> Move:
        seen.extend([gradients.left, gradients.right, gradients.core, gradients.through(p, q)])
        return Move(u, v, s, s, None)

    small.tape = Tape(integrate)
    inputs = x.clone().requires_grad_()
    (small(inputs).sin().sum() + small(x2).cos().sum()).backward()

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return dense_output(layer, weight, x).sin().sum() + dense_output(layer, weight, x2).cos().sum()

    expected = [
        gradient_of(u @ s, lambda k: loss(k @ v.mT)),
        gradient_of(v @ s.mT, lambda one: loss(u @ one.mT)),
        gradient_of(s, lambda core: loss(u @ core @ v.mT)),
        p.mT @ gradient_of(product(factors(small)), loss) @ q,
    ]
    torch.testing.assert_close(seen, expected, rtol=1e-9, atol=1e-9)
    assert small.S.grad is None
    weight = product(factors(small))
    of_input = gradient_of(x, lambda given_x: dense_output(layer, weight, given_x).sin().sum())
    torch.testing.assert_close(inputs.grad, of_input, rtol=1e-9, atol=1e-9)
    if layer.bias is not None:
        assert small.bias is not None
        loss(weight).backward()
        torch.testing.assert_close(small.bias.grad, layer.bias.grad, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(layers(), st.data())
def test_the_plain_stages_compute_the_same_after_training(layer: Layer, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, full_rank(layer)))
    small, x = low_rank(layer, rank), random_input(layer, 2)
    with torch.no_grad():
        small.S.add_(torch.randn_like(small.S))
    plain = factorize_layer(layer, Factorization(kind="svd", ranks=(rank,)), weights=small.stages())
    torch.testing.assert_close(plain(x), small(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("layer", [nn.Linear(12, 9), nn.Conv2d(4, 9, 3, stride=2, padding=1)], ids=["linear", "conv"])
def test_the_passes_may_be_of_lower_precision_than_the_factors(layer: Layer) -> None:
    small, seen = low_rank(layer, 3), []

    def integrate(gradients: Gradients) -> Move:
        seen.extend([gradients.left, gradients.core])
        return Move(*factors(small)[:1], small.V, small.S, small.S, None)

    x = torch.randn(8, 12) if isinstance(layer, nn.Linear) else torch.randn(8, 4, 7, 7)
    exact = small(x)
    small.tape = Tape(integrate)
    with torch.autocast("cpu", torch.bfloat16):
        output = small(x)
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.05)
    output.float().square().sum().backward()
    assert {gradient.dtype for gradient in seen} == {torch.float32}


def test_a_half_precision_layer_has_factors_in_single_precision() -> None:
    small = low_rank(nn.Linear(12, 9).bfloat16(), 3)
    assert (small.U.dtype, small.S.dtype) == (torch.float32, torch.float32)
    assert small(torch.randn(2, 12).bfloat16()).dtype is torch.bfloat16
