import math
from collections.abc import Iterator
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
    sizes = []
    for beta in (0.01, 3.0):
        result = compress("rene", {"beta": beta, "data_free": True, "initial_step": 4}, small_network())
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
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 10, 3, stride=2)
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
        config = TrainingConfig(epochs=4)
        list(train(model, splits, config, device=device, seed=0, gate=gate, retraining=retraining))
    values = {"budget": {"params": 0.6}, "initial_step": 4, "factor": 4, "steps": 10}
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
