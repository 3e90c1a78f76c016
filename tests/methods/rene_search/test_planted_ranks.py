"""The search on layers whose ranks are known, so that what it should return is known as well."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from lrsearch.data import Splits
from lrsearch.factorize import LayerShape, find_layers, layer_cost
from lrsearch.factorize.cp import multiply_out
from lrsearch.factorize.ranks import Decomposition, of_rank
from lrsearch.methods.base import Task
from lrsearch.methods.rene_search.candidate_weights import candidate_weights
from lrsearch.methods.rene_search.grid import step_sizes
from lrsearch.methods.rene_search.search import Layer, Plan, search
from lrsearch.methods.rene_search.stage import Settings
from tests.methods.zoo import collect, compress

CHANNELS = 10
RESOLUTIONS = [(10, 10), (8, 8), (8, 2), (4, 4), (1, 2)]


def orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Columns at right angles, as many as there can be; the others, where there are more, of norm 1."""
    random = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    rest = random[:, rows:]
    return torch.cat([torch.linalg.qr(random[:, :rows])[0], rest / rest.norm(dim=0)], dim=1)


def planted(decomposition: str, outputs: int, inputs: int, rank: int, generator: torch.Generator) -> Tensor:
    """A (outputs, inputs, 3, 3) weight of norm 1, whose parts all carry as much of it: no rank but this is natural."""
    last, first = (orthonormal(size, rank, generator) for size in (outputs, inputs))
    if decomposition == "tt":
        core = orthonormal(rank * 9, rank, generator).reshape(rank, 9, rank)
        weight = torch.einsum("sr,rkq,cq->sck", last, core, first)
    else:
        kernel = [orthonormal(size, rank, generator) for size in ([9] if decomposition == "cp" else [3, 3])]
        weight = multiply_out([last, *kernel, first]).movedim(-1, 1)
    return weight.reshape(outputs, inputs, 3, 3) / weight.norm()


def noisy(weight: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    added = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return weight + added * noise * weight.norm() / added.norm()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.sampled_from(["tt", "cp", "cp4"]),
    st.tuples(st.integers(6, 12), st.integers(6, 12)),
    st.sampled_from([0.05, 0.2]),
    st.sampled_from(RESOLUTIONS),
    st.sampled_from(["cost", "cap"]),
    st.data(),
)
def test_planted_ranks_are_found_without_data(
    decomposition: str,
    channels: tuple[int, int],
    noise: float,
    resolution: tuple[int, int],
    rank_loss: str,
    data: st.DataObject,
) -> None:
    """Every resolution ends within its step of the rank, and the last within 1."""
    rank = data.draw(st.integers(2, min(channels) - 2))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    layer = nn.Conv2d(channels[1], channels[0], 3, padding=1, bias=False, dtype=torch.float64)
    layer.weight.data = noisy(planted(decomposition, *channels, rank, generator), noise, generator)
    initial_step, factor = resolution
    values = {"decomposition": decomposition, "data_free": True, "rank_loss": rank_loss}
    values |= {"initial_step": initial_step, "factor": factor}
    chosen = compress("rene", values, nn.Sequential(layer), Task()).history["ranks"]["0"]
    for step, found in zip(step_sizes(initial_step, factor, None), chosen, strict=True):
        assert abs(found - rank) <= step


def planted_network(decomposition: str, ranks: Sequence[int], noise: float) -> tuple[nn.Module, Splits]:
    """Two planted layers, noisy now, and classes drawn as often as the clean network says.

    So in expectation no network has a lower cross-entropy than the one of the planted ranks (Gibbs' inequality); with
    the classes that a network finds most probable, weaker components may as well be in the way.
    """
    generator = torch.Generator().manual_seed(0)
    first, second = (nn.Conv2d(CHANNELS, CHANNELS, 3, bias=False, dtype=torch.float64) for _ in ranks)
    for layer, rank in zip((first, second), ranks, strict=True):
        layer.weight.data = planted(decomposition, CHANNELS, CHANNELS, rank, generator)
    model = nn.Sequential(first, nn.ReLU(), second, nn.Flatten())
    x = torch.randn(512, CHANNELS, 5, 5, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        first.weight /= first(x).std()
        second.weight *= 6 / model(x).std()
        drawn = torch.multinomial(model(x).softmax(1), 1, generator=generator)[:, 0]
        for layer in (first, second):
            layer.weight.data = noisy(layer.weight, noise, generator)
    items = TensorDataset(x, drawn)
    return model, Splits("planted", items, items, items, items, classes=CHANNELS)


def best_ranks(model: nn.Module, splits: Splits, decomposition: Decomposition, beta: float) -> tuple[int, int]:
    """Of all pairs of ranks up to 10 the one of the least log cross-entropy + beta log parameters."""
    x, targets = splits.train.tensors
    first, _, second, _ = model
    fits, params = [], []
    for name, shape in find_layers(model)[0].items():
        weights = candidate_weights(model.get_submodule(name).weight, shape, decomposition, range(1, 11), 11)
        fits.append([weights.mixture(alone) for alone in torch.eye(10, dtype=torch.float64)])
        params.append([layer_cost(shape, of_rank(shape, decomposition, rank)).params for rank in range(1, 11)])
    objective = torch.zeros(10, 10, dtype=torch.float64)
    for i, weight in enumerate(fits[0]):
        hidden = functional_call(first, {"weight": weight}, x).relu()
        for j, other in enumerate(fits[1]):
            loss = cross_entropy(functional_call(second, {"weight": other}, hidden).flatten(1), targets)
            objective[i, j] = (loss * (params[0][i] + params[1][j]) ** beta).log()
    row, column = divmod(int(objective.argmin()), 10)
    return row + 1, column + 1


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.05, 0.2])
@pytest.mark.parametrize(
    ("decomposition", "ranks", "initial_step", "factor"),
    [("tt", (3, 7), 8, 2), ("cp", (3, 8), 8, 8), ("cp", (8, 4), 4, 4), ("cp4", (4, 7), 4, 2)],
)
def test_planted_ranks_are_found_by_the_cross_entropy_as_by_trying_all(
    decomposition: Decomposition, ranks: tuple[int, int], initial_step: int, factor: int, noise: float
) -> None:
    model, splits = planted_network(decomposition, ranks, noise)
    assert best_ranks(model, splits, decomposition, beta=0.4) == ranks
    values = {"decomposition": decomposition, "initial_step": initial_step, "factor": factor, "beta": 0.4}
    values |= {"steps": 25, "batch_size": 512}
    history = compress("rene", values, model, Task(splits=splits)).history["ranks"]
    for step, found in zip(step_sizes(initial_step, factor, None), zip(*history.values(), strict=True), strict=True):
        assert all(abs(f - rank) <= step for f, rank in zip(found, ranks, strict=True))


def test_a_search_walks_the_stages_of_figure_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 100..800 to 200, of [150, 250] to 240, of [235, 245] to the planted rank, 238.

    200 parts of the layer carry all but 1.2 % of it, and 38 the rest. It is diagonal: its singular bases are known,
    and the seconds that computing them takes are spared.
    """
    energies = torch.cat([torch.linspace(9, 1, 200), torch.full((38,), 0.32)])
    weight = torch.diag(torch.cat([energies.sqrt(), torch.zeros(1601 - 238)]))
    eye = torch.eye(1601)

    def diagonal_bases(kernels: Tensor, _: int, r1: int, r2: int) -> tuple[Tensor, Tensor, Tensor]:
        return eye[:r1, :, None, None], kernels[:r2, :r1], eye[:, :r2, None, None]

    monkeypatch.setattr("lrsearch.methods.rene_search.candidate_weights.tucker2_weights", diagonal_bases)
    layer = nn.Linear(1601, 1601, bias=False)
    layer.weight.data = weight
    shape = LayerShape(1601, 1601)
    sizes = [layer_cost(shape, of_rank(shape, "tt", rank)).params for rank in range(1, 801)]
    costs = torch.tensor([*sizes, 1601**2])[:, None] / 1601**2
    settings = Settings("tt", "branch", "cost", beta=0.8, gamma=0.4, lr=0.1, lr_alpha=1.0, recalibrate=False)
    plan = Plan(settings, step_sizes(100, 10, None), 0, 50, batch_size=1, data=None, seed=0, steered=False)
    found = collect(search(nn.Sequential(layer), {"0": Layer(shape, costs)}, plan, Task()))[1]
    grids = [[int(rank) for rank in stage["0"]] for stage in found.alpha]
    assert grids == [[*range(100, 801, 100), 801], [*range(150, 251, 10)], [*range(235, 246)]]
    assert found.ranks["0"] == [200, 240, 238]
