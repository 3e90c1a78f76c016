from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lrsearch.factorize import compare_layers, copy_with, factorize_layer
from lrsearch.recipe import Factorization

DENSE = Factorization(kind="dense", reason="small")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 5)).double().eval()


def test_the_error_of_an_svd_is_the_energy_of_what_it_drops():
    dense = network()
    kinds = {"0": DENSE, "3": Factorization(kind="svd", ranks=(2,))}
    compressed = copy_with(dense, {"3": factorize_layer(dense[3], kinds["3"])})
    first, last = compare_layers(dense, compressed, kinds)
    values = torch.linalg.svdvals(dense[3].weight.detach())
    assert last["error"] == pytest.approx(float(values[2:].norm() / values.norm()))
    assert (last["shape"], last["ranks"], last["kind"]) == ([5, 8], [2], "svd")
    assert (last["dense_params"], last["params"]) == (5 * 8 + 5, 2 * 8 + 5 * 2 + 5)
    assert (first["error"], first["params"], first["reason"]) == (0.0, first["dense_params"], "small")


def test_a_pruned_layer_has_no_error_and_batch_norm_no_entry():
    dense = network()
    compressed = copy.deepcopy(dense)
    compressed[0] = nn.Conv2d(6, 4, 3)
    pruned = {"0": Factorization(kind="pruned", ranks=(6, 4)), "1": Factorization(kind="pruned", ranks=(4,))}
    (entry,) = compare_layers(dense, compressed, pruned)
    assert (entry["layer"], entry["error"], entry["params"]) == ("0", None, 6 * 4 * 9 + 4)
