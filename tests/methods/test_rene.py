import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lrsearch.compression import compress_steps, drain
from lrsearch.compression import make_task as make_trial_task
from lrsearch.data import Splits, load_data
from lrsearch.errors import LrsearchError, TrialFailedError
from lrsearch.factorize import find_layers, layer_cost
from lrsearch.factorize.cp import multiply_out
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.cost import count_cost
from lrsearch.measure.gate import DeviceGate
from lrsearch.methods import load_method, parse_hyperparameters
from lrsearch.methods.base import Compressed, Retrains, Task
from lrsearch.methods.rene_search import search
from lrsearch.methods.rene_search.budget import smaller_members
from lrsearch.models import build_model
from lrsearch.recipe import Factorization
from lrsearch.training import Retraining, TrainingConfig, train
from lrsearch.training.distillation import distil_logits
from tests.methods.zoo import collect, compress, images, make_task, zoo

BRIEF = {"steps": 3, "warm_up": 1, "initial_step": 4, "factor": 4}


def planted(decomposition: str, rank: int, noise: float, generator: torch.Generator) -> Tensor:
    """A (32, 32, 3, 3) weight of norm 1 of this rank, with noise of this relative size."""

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    if decomposition == "tt":
        weight = torch.einsum("sr,rqk,qc->sck", random(32, rank), random(rank, rank, 9), random(rank, 32))
    else:
        kernel = [9] if decomposition == "cp" else [3, 3]
        weight = multiply_out([random(size, rank) for size in (32, *kernel, 32)]).movedim(-1, 1)
    weight = weight.reshape(32, 32, 3, 3) / weight.norm()
    added = random(32, 32, 3, 3)
    return weight + noise * added / added.norm()


def planted_network(decomposition: str, ranks: tuple[int, int], noise: float) -> tuple[nn.Module, Splits]:
    """Two planted convolutions, and inputs that the network is right and sure about."""
    generator = torch.Generator().manual_seed(0)
    convolutions = [nn.Conv2d(32, 32, 3, padding=1, bias=False, dtype=torch.float64) for _ in ranks]
    for layer, rank, gain in zip(convolutions, ranks, (6.0, 180.0), strict=True):
        layer.weight.data = gain * planted(decomposition, rank, noise, generator)
    first, second = convolutions
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(128, 32, 6, 6, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        items = TensorDataset(x, model(x).argmax(1))
    return model, Splits("planted", items, items, items, items, classes=32)


def found_without_data(
    decomposition: str, ranks: Sequence[int], noise: float, **values: Any
) -> tuple[list[list[int]], list[int]]:
    """What the search chose step by step, and how far it ended from the rank, for layers with planted ranks."""
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Conv2d(32, 32, 3, padding=1, bias=False, dtype=torch.float64) for _ in ranks]
    for layer, rank in zip(layers, ranks, strict=True):
        layer.weight.data = planted(decomposition, rank, noise, generator)
    values |= {"decomposition": decomposition, "data_free": True}
    found = list(compress("rene", values, nn.Sequential(*layers), Task()).history["ranks"].values())
    return found, [abs(chosen[-1] - rank) for chosen, rank in zip(found, ranks, strict=True)]


RESOLUTIONS = [(10, 10), (8, 8), (8, 2), (4, 4), (1, 2)]


@pytest.mark.parametrize("rank_loss", ["cost", "cap"])
@pytest.mark.parametrize("noise", [0.05, 0.2])
@pytest.mark.parametrize(("initial_step", "factor"), RESOLUTIONS)
def test_planted_ranks_of_trains_are_found_without_data(
    noise: float, initial_step: int, factor: int, rank_loss: str
) -> None:
    values = {"initial_step": initial_step, "factor": factor, "rank_loss": rank_loss}
    assert max(found_without_data("tt", range(2, 15), noise, **values)[1]) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("initial_step", "factor", "noise"), [(10, 10, 0.2), (8, 2, 0.05)])
def test_planted_ranks_of_cp_are_found_without_data(initial_step: int, factor: int, noise: float) -> None:
    values = {"initial_step": initial_step, "factor": factor}
    assert max(found_without_data("cp", (3, 8, 12, 20), noise, **values)[1]) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decomposition", "ranks", "noise", "away"),
    [("tt", (5, 12), 0.05, 1), ("tt", (5, 12), 0.2, 1), ("cp", (8, 20), 0.2, 3)],
)
def test_planted_ranks_are_found_by_the_cross_entropy(
    decomposition: str, ranks: tuple[int, int], noise: float, away: int
) -> None:
    """CP less exactly: its candidates are not nested, so that a mixture of two beats the one between them."""
    model, splits = planted_network(decomposition, ranks, noise)
    values = {"decomposition": decomposition, "initial_step": 8, "factor": 8, "steps": 60}
    found = compress("rene", values, model, Task(splits=splits)).history["ranks"].values()
    assert max(abs(chosen[-1] - rank) for chosen, rank in zip(found, ranks, strict=True)) <= away


def test_every_resolution_ends_within_its_step_of_the_planted_rank() -> None:
    ranks = range(2, 15)
    found, _ = found_without_data("tt", ranks, 0.1, initial_step=8, factor=2)
    for rank, chosen in zip(ranks, found, strict=True):
        assert all(abs(c - rank) <= step for step, c in zip((8, 4, 2, 1), chosen, strict=True))


def test_probabilities_and_ranks_of_every_stage_are_told() -> None:
    history = compress("rene", {**BRIEF, "steps": 5}).history
    assert len(history["alpha"]) == 2
    for stage, probabilities in enumerate(history["alpha"]):
        for name, of_rank in probabilities.items():
            assert sum(of_rank.values()) == pytest.approx(1)
            assert str(history["ranks"][name][stage]) == max(of_rank, key=of_rank.__getitem__)


def test_a_budget_takes_the_same_part_of_all_wanted_ranks() -> None:
    """No ranks within the budget are all closer to what was wanted than the smallest fraction left here."""
    model = zoo()
    result = compress("rene", {**BRIEF, "rank_loss": "cap", "budget": {"params": 0.5}}, model)
    wanted = {name: chosen[-1] for name, chosen in result.history["ranks"].items()}
    layers = {name: layer for name, layer in result.recipe.layers.items() if layer.kind != "dense"}
    least = min(Fraction(max(layer.ranks), wanted[name]) for name, layer in layers.items())
    shapes = find_layers(model)[0]
    allowed = 0.5 * count_cost(model, None).params
    params = count_cost(model, None).params
    for name, rank in wanted.items():
        members = smaller_members(shapes[name], "tt")
        closer = math.floor(least * rank)
        if closer < len(members):
            params += layer_cost(shapes[name], members[closer]).params
            params -= layer_cost(shapes[name], Factorization(kind="dense", reason="")).params
    assert count_cost(result.model, None).params <= allowed < params


def test_a_smaller_beta_leaves_more() -> None:
    model, splits = planted_network("tt", (5, 12), 0.5)
    sizes = []
    for beta in (0.01, 3.0):
        result = compress("rene", {"beta": beta, "data_free": True, "initial_step": 4}, model, Task(splits=splits))
        sizes.append(count_cost(result.model, None).params)
    assert sizes[0] > 1.2 * sizes[1]


@pytest.mark.parametrize(
    ("decomposition", "objective", "data_free"),
    [("tt", "branch", False), ("tt", "paper", False), ("cp", "branch", True), ("cp4", "paper", False)],
)
def test_a_search_that_is_killed_ends_as_if_it_were_not(
    decomposition: str, objective: str, data_free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    values = {**BRIEF, "decomposition": decomposition, "objective": objective, "data_free": data_free}
    whole = collect(running(values, make_task(example=False)))[1]
    task = replace(make_task(example=False), checkpoint=tmp_path / "compressing.pt")
    for steps in (5, 6):  # in the first stage, then, from there on, at the start of the second
        killed = running(values, task)
        for _ in range(steps):
            next(killed)
        killed.close()
        task = replace(task, generator=torch.Generator().manual_seed(0))
    resumed = collect(running(values, task))[1]
    assert resumed.recipe == whole.recipe
    assert resumed.history == whole.history
    states = resumed.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def small_network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3, stride=2)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()


def running(values: dict[str, Any], task: Task) -> Any:
    method = load_method("rene")
    return method.compress(small_network(), task, parse_hyperparameters("rene", values), {})


def test_a_checkpoint_of_another_search_or_a_damaged_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    task = replace(make_task(example=False), checkpoint=tmp_path / "compressing.pt")
    collect(running(BRIEF, task))
    with pytest.raises(LrsearchError, match="belongs to a search with other settings; delete it"):
        collect(running({**BRIEF, "beta": 0.1}, replace(task, generator=torch.Generator().manual_seed(0))))
    (tmp_path / "compressing.pt").write_bytes(b"PK nonsense")
    with pytest.raises(LrsearchError, match="cannot be read"):
        collect(running(BRIEF, task))


def test_data_is_asked_for_where_it_is_needed() -> None:
    with pytest.raises(LrsearchError, match="rene trains on data, expected splits"):
        compress("rene", BRIEF, task=Task())
    assert compress("rene", {**BRIEF, "data_free": True}, task=Task()).recipe.method == "rene"


def test_a_diverging_cp_names_layer_and_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(*_: Any, **__: Any) -> Iterator[Tensor]:
        raise ArithmeticError("a CP decomposition of 4 components diverges")

    monkeypatch.setattr("lrsearch.methods.rene_search.candidate_weights.cp_fits", diverging)
    with pytest.raises(TrialFailedError, match=r"layer 'stem', candidates of rank 4 to 14: a CP .* diverges"):
        compress("rene", {**BRIEF, "decomposition": "cp"})


def test_a_diverging_training_of_factors_names_layer_and_candidate() -> None:
    values = {**BRIEF, "decomposition": "cp", "objective": "paper", "lr": 1e200, "warm_up": 5}
    with pytest.raises(TrialFailedError, match=r"not finite at layer '0', candidate of rank \d"):
        compress("rene", values, small_network())


def test_inputs_that_are_not_finite_name_layer_and_candidate() -> None:
    items = TensorDataset(images(8) * float("nan"), torch.arange(8))
    task = replace(make_task(), splits=Splits("broken", items, items, items, items, classes=10))
    with pytest.raises(TrialFailedError, match=r"not finite at layer '\w+', candidate of rank \d"):
        compress("rene", BRIEF, task=task)


@pytest.mark.slow
def test_a_student_of_a_teacher_is_compressed_in_turn() -> None:
    """The paper's double compression: the student learns from the teacher, then RENE compresses the student."""
    splits, device, gate = load_data({"name": "digits"}), torch.device("cpu"), DeviceGate("cpu")
    torch.manual_seed(0)
    teacher, student = (build_model({"name": "digits_resnet", "width": width}) for width in (16, 8))
    for model, retraining in ((teacher, Retraining()), (student, Retraining(extra_loss=distil_logits(teacher, 1.0)))):
        config = TrainingConfig(epochs=8)
        list(train(model, splits, config, device=device, seed=0, gate=gate, retraining=retraining))
    values = {"budget": {"params": 0.6}, "initial_step": 4, "factor": 4, "steps": 30}
    result = drain(compress_steps(student, "rene", values, make_trial_task(student, splits)))
    sizes = [count_cost(model, None).params for model in (teacher, student, result.model)]
    assert sizes[0] > 3 * sizes[1]
    assert sizes[2] <= 0.6 * sizes[1]
    assert evaluate(result.model, splits.batches("test", 256), device, gate)["accuracy"] > 85


def test_retraining_distils_the_factorized_layers() -> None:
    method, model = load_method("rene"), zoo()
    assert isinstance(method, Retrains)
    result: Compressed = compress("rene", {**BRIEF, "budget": {"params": 0.5}}, model)
    x = images(4)
    with_, without = (
        method.retraining(result, model, parse_hyperparameters("rene", {"distillation": weight})).extra_loss
        for weight in (0.5, 0.0)
    )
    assert without is None
    assert with_ is not None
    result.model.train()
    assert float(with_(x, result.model(x)).detach()) > 0
