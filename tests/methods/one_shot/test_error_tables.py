"""Error tables that stop early against tables of all ranks, by brute force over what could be chosen from them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lrsearch.factorize import LayerShape, layer_cost
from lrsearch.factorize.output_aware import DenseOutputs, FoldedOutputs, decompose
from lrsearch.factorize.stages import max_rank
from lrsearch.methods.one_shot.candidates import sizes, smaller_ranks, svd
from lrsearch.methods.one_shot.error_tables import Key, error_tables
from lrsearch.methods.one_shot.timed import DENSE

FAMILIES = [(scheme, k) for scheme in range(4) for k in (1, 8)]
SHAPE = LayerShape(out_channels=48, in_channels=64, kernel=(3, 3))


def dense(dtype: torch.dtype = torch.float64) -> DenseOutputs:
    """Smooth inputs, so that the weight's outputs have few directions and foldings differ."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*sides: int) -> Tensor:
        return torch.randn(sides, generator=generator, dtype=torch.float64)

    side = 64 * 9
    place = torch.arange(9.0, dtype=torch.float64)
    smooth = torch.exp(-((place[:, None] - place) ** 2) / 4) + 0.01 * torch.eye(9)
    mixed = drawn(64, 64) * torch.linspace(1, 0.05, 64, dtype=torch.float64)
    covariance = torch.kron(mixed @ mixed.mT, smooth) + 1e-3 * torch.eye(side)
    return DenseOutputs(drawn(48, 64, 3, 3).to(dtype), covariance.to(dtype), torch.eye(48, dtype=dtype))


def costs() -> dict[Key, np.ndarray]:
    found = {}
    for key in FAMILIES:
        first = layer_cost(SHAPE, svd(*key, 1))
        ranks = smaller_ranks(first, layer_cost(SHAPE, DENSE))[: max_rank(SHAPE, *key)]
        found[key] = np.outer(ranks, sizes(first))
    return found


def all_ranks(group: DenseOutputs) -> dict[Key, Tensor]:
    return {(s, k): decompose(FoldedOutputs(group, s), k, len(known)).errors for (s, k), known in costs().items()}


def least(tables: dict[Key, Tensor]) -> np.ndarray:
    """The least error at no more than each cost."""
    spent = np.concatenate([costs()[key][: len(table) - 1, 0] for key, table in tables.items()])
    lost = np.concatenate([table[1:].numpy() for table in tables.values()])
    return np.array([lost[spent <= cost].min() for cost in range(spent.min(), 48 * 64 * 9, 50)])


def test_nothing_is_lost_that_could_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrsearch.methods.one_shot.error_tables._SMALL", 1)
    stopping, whole = error_tables([dense()], costs()), all_ranks(dense())
    for key, table in stopping.items():
        torch.testing.assert_close(table, whole[key][: len(table)], rtol=1e-6, atol=1e-9 * float(table[0]))
    assert len(stopping[0, 1]) == len(whole[0, 1])
    assert sum(map(len, stopping.values())) < 0.9 * sum(map(len, whole.values()))
    np.testing.assert_allclose(least(stopping), least(whole), rtol=1e-6)


def test_groups_of_a_convolution_lose_together() -> None:
    one, two = (error_tables([dense()] * count, costs()) for count in (1, 2))
    for key, table in one.items():
        torch.testing.assert_close(two[key], 2 * table)


def test_single_precision_will_do() -> None:
    exact, single = error_tables([dense()], costs()), error_tables([dense(torch.float32)], costs())
    for key, table in exact.items():
        close = single[key][: len(table)]
        torch.testing.assert_close(close, table[: len(close)], rtol=1e-3, atol=1e-5 * float(table[0]))
