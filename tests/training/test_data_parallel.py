"""Processes that train together end as one that trains alone on the same batches."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing, nn
from torch.utils.data import TensorDataset

from lrsearch.data import Batches, Splits
from lrsearch.measure.gate import DeviceGate
from lrsearch.models import build_model
from lrsearch.training import Retraining, TrainingConfig, train
from lrsearch.training.data_parallel import Place, place, together

CPU = torch.device("cpu")


def setting(precision: str) -> tuple[nn.Module, Splits, TrainingConfig, Retraining]:
    """Batches of odd sizes, an average, layers frozen by turns, another loss; no batch norm, which sees its share."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(50, 1, 8, 8), torch.arange(50) % 10)
    splits = Splits("noise", data, data, data, data, classes=10)
    model = build_model({"name": "digits_mlp", "width": 12})
    config = TrainingConfig(epochs=3, lr=0.05, batch_size=9, ema_decay=0.8)
    frozen = Retraining(
        frozen=lambda epoch: {"1.weight"} if epoch == 2 else set(),
        extra_loss=lambda _, outputs: outputs.square().mean(),
    )
    return model, splits, config.model_copy(update={"precision": precision}), frozen


def trained(folder: Path, precision: str) -> dict[str, Any]:
    model, splits, config, retraining = setting(precision)
    gate = DeviceGate("cpu", folder / f"locks{place().rank}")
    epochs = list(
        train(model, splits, config, device=CPU, seed=1, gate=gate, checkpoint=folder / "c.pt", retraining=retraining)
    )
    return {"losses": [epoch.loss for epoch in epochs], "model": model.state_dict()}


def one_of_two(rank: int, folder: Path, precision: str) -> None:
    torch.set_num_threads(1)
    with together(Place(rank, 2), CPU, folder / "rendezvous"):
        torch.save(trained(folder, precision), folder / f"{rank}.pt")
    # Not by way of the interpreter's end: gloo's threads may let their tensors go after it began, which aborts.
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_two_processes_train_as_one_does(precision: str, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    expected = trained(tmp_path / "alone", precision)
    multiprocessing.spawn(one_of_two, args=(tmp_path, precision), nprocs=2)
    leader, helper = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert helper["losses"] == []
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if precision == "float32" else {"rtol": 0.02, "atol": 2e-3}
    torch.testing.assert_close(torch.tensor(leader["losses"]), torch.tensor(expected["losses"]), **tolerance)
    for key, value in expected["model"].items():
        torch.testing.assert_close(leader["model"][key], value, **tolerance)
        assert torch.equal(leader["model"][key], helper["model"][key])


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("size", [2, 3])
def test_shares_of_a_batch_are_the_batch(size: int, seed: int | None) -> None:
    data = TensorDataset(torch.arange(23).float(), torch.arange(23))
    whole = Batches(data, 7, seed=seed)
    shares = [Batches(data, 7, seed=seed, share=(rank, size)) for rank in range(size)]
    assert {len(share) for share in shares} == {len(whole)}
    for (_, targets), *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat([part for _, part in parts]), targets)


def test_shares_are_augmented_differently() -> None:
    data = TensorDataset(torch.zeros(8, 1), torch.arange(8))

    def noise(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return inputs + torch.rand(inputs.shape, generator=generator)

    first, second = (
        next(iter(Batches(data, 8, seed=0, augment=noise, share=(rank, 2))))[0].flatten().tolist() for rank in (0, 1)
    )
    assert not set(first) & set(second)


def test_alone_a_process_leads_and_draws_what_it_always_drew() -> None:
    assert place() == Place(0, 1) and place().leads and place().seed(7) == 7
    assert len({Place(rank, 4).seed(7) for rank in range(4)}) == 4
