import pytest
import torch
from torch import nn

from lrsearch.data import load_data
from lrsearch.measure.gate import DeviceGate
from lrsearch.methods import load_method, parse_hyperparameters
from lrsearch.methods.base import Retrains, Task
from lrsearch.methods.one_shot.freezing import Freeze, frozen_factors
from lrsearch.models import build_model
from lrsearch.recipe import Factorization, Recipe
from lrsearch.training import TrainingConfig, train
from tests.methods.zoo import compress

RECIPE = Recipe(
    method="tucker",
    layers={
        "chain": Factorization(kind="tucker2", ranks=(2, 2)),
        "pair": Factorization(kind="svd", ranks=(2,)),
        "whole": Factorization(kind="dense", reason="for a reason"),
        "thin": Factorization(kind="pruned", ranks=(2, 2)),
    },
)
PUBLISHED = {"chain.0.weight", "chain.2.weight", "pair.0.weight"}
OTHERS = {"chain.1.weight", "pair.1.weight"}


@pytest.mark.parametrize(
    ("freeze", "epochs"),
    [
        ("none", [set(), set(), set()]),
        ("published", [PUBLISHED, PUBLISHED, PUBLISHED]),
        ("sequential", [PUBLISHED, OTHERS, PUBLISHED]),
    ],
)
def test_which_factors_are_fixed_in_which_epoch(freeze: Freeze, epochs: list[set[str]]) -> None:
    frozen = frozen_factors(RECIPE, freeze)
    assert [set(frozen(epoch)) for epoch in (1, 2, 3)] == epochs


@pytest.mark.parametrize("freeze", ["none", "published", "sequential"])
def test_fixed_factors_stay_and_all_else_trains(freeze: Freeze) -> None:
    """Their gradients are not computed at all, and biases and batch norms train in every epoch."""
    dense = build_model({"name": "digits_resnet", "width": 8})
    values = {"alpha": 2.0, "freeze": freeze}
    compressed, method = compress("tucker", values, dense, Task()), load_method("tucker")
    assert isinstance(method, Retrains)
    retraining = method.retraining(compressed, dense, parse_hyperparameters("tucker", values))
    network = compressed.model
    before = {name: value.clone() for name, value in network.named_parameters()}
    config, splits = TrainingConfig(epochs=2, batch_size=256), load_data({"name": "digits"})
    running = train(
        network, splits, config, device=torch.device("cpu"), seed=0, gate=DeviceGate("cpu"), retraining=retraining
    )
    for epoch in (1, 2):
        next(running)
        frozen = set(retraining.frozen(epoch))
        assert bool(frozen) == (freeze != "none")
        for name, value in network.named_parameters():
            assert torch.equal(value, before[name]) == (name in frozen), (epoch, name)
        before = {name: value.clone() for name, value in network.named_parameters()}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_frozen_factors_cost_no_gradient() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    small = compress("tucker", {"alpha": 2.0}, model, Task())
    for name in frozen_factors(small.recipe, "published")(1):
        small.model.get_parameter(name).requires_grad_(False)
    small.model(torch.randn(1, 3, 8, 8)).sum().backward()
    without = {name for name, parameter in small.model.named_parameters() if parameter.grad is None}
    assert without == {"1.0.weight", "1.2.weight"}
