"""A decomposition out of singular vectors that were found before is the one made from scratch."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from lrsearch.factorize import factorize_layer
from lrsearch.methods.one_shot.candidates import svd
from lrsearch.methods.one_shot.decompose import decompose
from lrsearch.shared_tensors import SharedTensors

DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@st.composite
def layers(draw):
    """A layer, a scheme and a number of subspaces that fit it."""
    subspaces, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    inputs, outputs = subspaces * draw(st.integers(1, 4)), draw(st.integers(1, 8))
    dtype, kernel = draw(DTYPES), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    if draw(st.booleans()):
        return nn.Linear(inputs, outputs, dtype=dtype), 0, subspaces
    stride = draw(st.integers(1, 2))
    layer = nn.Conv2d(groups * inputs, groups * outputs, kernel, stride, groups=groups, dtype=dtype)
    return layer, draw(st.integers(0, 3)), subspaces


def assert_same(found, expected):
    assert repr(found) == repr(expected)
    for one, other in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def all_ranks(layer, scheme, subspaces):
    """Also those that make the layer larger."""
    for rank in itertools.count(1):
        try:
            yield svd(scheme, subspaces, rank), factorize_layer(layer, svd(scheme, subspaces, rank))
        except ValueError:
            return


@settings(deadline=None, max_examples=40)
@given(layers())
def test_every_rank_is_the_same_bit_for_bit(tmp_path_factory, chosen):
    layer, folder = chosen[0], tmp_path_factory.mktemp("shared")
    for factorization, expected in all_ranks(*chosen):
        assert_same(decompose("a", layer, factorization, SharedTensors(folder)), expected)
        assert_same(decompose("a", layer, factorization, SharedTensors()), expected)
    (kept,) = folder.glob("*.safetensors")
    with safe_open(kept, "pt") as file:
        sizes = [file.get_tensor(name).numel() for name in ("left", "right")]
    assert sum(sizes) <= layer.weight.numel()


def test_singular_vectors_are_found_once(tmp_path, monkeypatch):
    layer, other = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
    decompose("a", layer, svd(0, 2, 1), SharedTensors(tmp_path))
    monkeypatch.setattr(torch.linalg, "svd", lambda *_, **__: pytest.fail("decomposed again"))
    decompose("a", layer, svd(0, 2, 5), SharedTensors(tmp_path))
    for name, weight, factorization in (
        ("b", layer, svd(0, 2, 1)),
        ("a", other, svd(0, 2, 1)),
        ("a", layer, svd(1, 2, 1)),
    ):
        with pytest.raises(pytest.fail.Exception):
            decompose(name, weight, factorization, SharedTensors(tmp_path))
