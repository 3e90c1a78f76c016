"""Layers of every kind, drawn at random, in double precision so that equal means equal."""

from typing import Any, Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from lrsearch.factorize import LayerShape, find_layers
from lrsearch.factorize.stages import max_cp_rank, max_rank, max_tucker_ranks
from lrsearch.recipe import Factorization


@st.composite
def convolutions(draw: st.DrawFn, grouped: bool = True) -> nn.Conv2d:
    groups = draw(st.sampled_from([1, 1, 2, 3])) if grouped else 1
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    modes: list[Literal["zeros", "reflect", "replicate", "circular"]] = ["zeros", "reflect", "replicate", "circular"]
    mode = draw(st.sampled_from(modes))
    same = draw(st.booleans())
    options: dict[str, Any] = {"padding": "same"}
    if not same:
        options = {
            "padding": draw(st.one_of(st.just("valid"), st.tuples(st.integers(0, 2), st.integers(0, 2)))),
            "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        }
    torch.manual_seed(draw(st.integers(0, 1000)))
    return nn.Conv2d(
        groups * draw(st.integers(1, 6)),
        groups * draw(st.integers(1, 6)),
        kernel,
        dilation=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
        dtype=torch.float64,
        **options,
    )


@st.composite
def linears(draw: st.DrawFn) -> nn.Linear:
    torch.manual_seed(draw(st.integers(0, 1000)))
    sizes = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    return nn.Linear(*sizes, bias=draw(st.booleans()), dtype=torch.float64)


def layers() -> st.SearchStrategy[nn.Conv2d | nn.Linear]:
    return st.one_of(convolutions(), convolutions(), linears())


def random_input(layer: nn.Module, batch: int = 1) -> Tensor:
    if isinstance(layer, nn.Linear):
        return torch.randn(batch, 5, layer.in_features, dtype=torch.float64)
    assert isinstance(layer, nn.Conv2d)
    return torch.randn(batch, layer.in_channels, 9, 8, dtype=torch.float64)


def shape_of(layer: nn.Module, example_input: Tensor | None = None) -> LayerShape:
    found, dense = find_layers(nn.Sequential(layer), example_input)
    assert not dense
    return found["0"]


def svd_factorizations(draw: st.DrawFn, shape: LayerShape, *, full_rank: bool = False) -> Factorization:
    divisors = [k for k in range(1, shape.in_per_group + 1) if shape.in_per_group % k == 0]
    subspaces = draw(st.sampled_from(divisors))
    scheme = draw(st.integers(0, 3))
    limit = max_rank(shape, scheme, subspaces)
    rank = limit if full_rank else draw(st.integers(1, limit))
    return Factorization.model_validate(
        {"kind": "svd", "ranks": (rank,) * subspaces, "groups": subspaces, "scheme": scheme}
    )


def tucker_factorizations(draw: st.DrawFn, shape: LayerShape, *, full_rank: bool = False) -> Factorization:
    limits = max_tucker_ranks(shape)
    ranks = limits if full_rank else tuple(draw(st.integers(1, limit)) for limit in limits)
    return Factorization(kind=draw(st.sampled_from(["tucker2", "tt"])), ranks=ranks)


def cp_factorizations(draw: st.DrawFn, shape: LayerShape, *, full_rank: bool = False) -> Factorization:
    assert not full_rank, "alternating least squares finds it only nearly"
    scheme = draw(st.sampled_from([0, 1]))
    rank = draw(st.integers(1, min(3, max_cp_rank(shape, scheme))))
    return Factorization.model_validate({"kind": "cp", "ranks": (rank,), "scheme": scheme})


@st.composite
def factorized(draw: st.DrawFn, *, full_rank: bool = False) -> tuple[nn.Conv2d | nn.Linear, Factorization]:
    layer = draw(layers())
    choices = [svd_factorizations]
    if isinstance(layer, nn.Conv2d):
        choices += [tucker_factorizations] if full_rank else [tucker_factorizations, cp_factorizations]
    choose = draw(st.sampled_from(choices))
    return layer, choose(draw, shape_of(layer), full_rank=full_rank)
