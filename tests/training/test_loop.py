import math
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lrsearch.data import Splits, load_data
from lrsearch.errors import LrsearchError, TrialFailedError
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.gate import DeviceGate
from lrsearch.models import build_model
from lrsearch.training import Epoch, Retraining, TrainingConfig, read_history, train

CPU = torch.device("cpu")
CONFIG = TrainingConfig(epochs=4, lr=0.05, batch_size=32)


def tensors(splits: Splits) -> tuple[Tensor, ...]:
    assert isinstance(splits.train, TensorDataset)
    return splits.train.tensors


def small(splits: Splits) -> Splits:
    data = TensorDataset(*(tensor[:100] for tensor in tensors(splits)))
    return replace(splits, train=data, validation=data)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return small(load_data({"name": "digits"}))


@pytest.fixture
def gate(tmp_path: Path) -> DeviceGate:
    return DeviceGate("cpu", tmp_path / "locks")


def network() -> Any:
    """Batch norm and dropout: state and randomness beyond the weights."""
    torch.manual_seed(0)
    resnet: Any = build_model({"name": "digits_resnet", "width": 4})
    return nn.Sequential(*list(resnet)[:-1], nn.Dropout(0.3), nn.Linear(16, 10))


def run(
    model: nn.Module,
    splits: Splits,
    gate: DeviceGate,
    config: TrainingConfig = CONFIG,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> list[Epoch]:
    return list(train(model, splits, config, device=CPU, seed=seed, gate=gate, checkpoint=checkpoint))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def timeless(history: list[Epoch]) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in history]


def test_the_same_seed_trains_the_same_network_and_another_does_not(splits: Splits, gate: DeviceGate) -> None:
    first, second, third = network(), network(), network()
    histories = [run(first, splits, gate)]
    torch.rand(5)
    histories.append(run(second, splits, gate))
    run(third, splits, gate, seed=1)
    assert same(first, second) and timeless(histories[0]) == timeless(histories[1])
    assert not same(first, third)


def test_the_global_random_state_is_left_alone(splits: Splits, gate: DeviceGate) -> None:
    model = network()
    state = torch.get_rng_state()
    run(model, splits, gate)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "adamw"},
        {"ema_decay": 0.9, "warmup_epochs": 2},
        {"precision": "bfloat16"},
        {"precision": "float16", "ema_decay": 0.8, "deterministic": True},
    ],
)
@pytest.mark.parametrize("interruptions", [(1,), (3,), (1, 2, 3), (4,)])
def test_an_interrupted_training_ends_as_if_it_never_stopped(
    interruptions: tuple[int, ...], options: dict[str, Any], splits: Splits, gate: DeviceGate, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"lr": 0.01, **options})
    whole = network()
    expected = run(whole, splits, gate, config)
    path = tmp_path / "checkpoint.pt"
    seen: list[Epoch] = []
    for stop in interruptions:
        training = train(network(), splits, config, device=CPU, seed=0, gate=gate, checkpoint=path)
        while len(seen) < stop:
            seen.append(next(training))
        del training
        (tmp_path / f".checkpoint.pt.{stop}").write_bytes(b"what a killed process left of its next checkpoint")
        torch.manual_seed(stop)
    resumed = network()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1)  # whatever the new process starts from, the checkpoint counts
    seen += run(resumed, splits, gate, config, checkpoint=path)
    assert same(whole, resumed)
    assert timeless(seen) == timeless(expected) == timeless(read_history(path))
    assert not resumed.training


def test_the_checkpoint_is_written_before_the_epoch_is_told(splits: Splits, gate: DeviceGate, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    told = []
    for epoch in train(network(), splits, CONFIG, device=CPU, seed=0, gate=gate, checkpoint=path):
        told.append(epoch)
        assert read_history(path) == told
    assert [epoch.epoch for epoch in told] == [1, 2, 3, 4]
    assert all(epoch.epochs == 4 and epoch.seconds > 0 for epoch in told)


@pytest.mark.parametrize("change", [{"lr": 0.06}, {"schedule": "constant"}])
def test_a_checkpoint_of_another_configuration_is_refused(
    change: dict[str, Any], splits: Splits, gate: DeviceGate, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    run(network(), splits, gate, checkpoint=path)
    with pytest.raises(LrsearchError, match=f"a training with {next(iter(change))}"):
        run(network(), splits, gate, CONFIG.model_copy(update=change), checkpoint=path)


def test_a_longer_training_goes_on_from_a_shorter_one(splits: Splits, gate: DeviceGate, tmp_path: Path) -> None:
    """Epoch by epoch at the rates of the longer schedule; at a constant rate it is the longer training."""
    path, config = tmp_path / "checkpoint.pt", CONFIG.model_copy(update={"schedule": "constant"})
    whole, continued = network(), network()
    run(whole, splits, gate, config)
    run(continued, splits, gate, config.model_copy(update={"epochs": 2}), checkpoint=path)

    again = network()
    seen = run(again, splits, gate, config, checkpoint=path)

    assert [epoch.epoch for epoch in seen] == [3, 4]
    assert same(whole, again)


def test_a_truncated_checkpoint_is_refused(splits: Splits, gate: DeviceGate, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    run(network(), splits, gate, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LrsearchError, match="delete it to restart"):
        run(network(), splits, gate, checkpoint=path)


def test_a_diverging_training_fails_and_names_the_epoch(splits: Splits, gate: DeviceGate) -> None:
    # The loss of a linear network under plain SGD grows without bound at this rate.
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10))
    config = TrainingConfig(epochs=3, lr=1e6, weight_decay=0, schedule="constant")
    with pytest.raises(TrialFailedError, match=r"loss is (nan|inf) in epoch \d"):
        run(model, splits, gate, config)
    with gate.measurement():
        pass


def test_no_epochs_change_nothing_but_the_mode(splits: Splits, gate: DeviceGate) -> None:
    model = network().train()
    assert run(model, splits, gate, TrainingConfig(epochs=0)) == []
    assert same(model, network()) and not model.training


def test_frozen_parameters_stay(splits: Splits, gate: DeviceGate) -> None:
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    run(model, splits, gate)
    assert torch.equal(model[0].weight, before)


def test_parameters_frozen_in_some_epochs_change_in_the_others(splits: Splits, gate: DeviceGate) -> None:
    model = network()
    name = next(name for name, _ in model.named_parameters())
    before, frozen_gradients = model.get_parameter(name).clone(), []
    model.register_forward_pre_hook(lambda *_: frozen_gradients.append(model.get_parameter(name).requires_grad))
    changed = []
    for _ in train(
        model,
        splits,
        CONFIG,
        device=CPU,
        seed=0,
        gate=gate,
        retraining=Retraining(frozen=lambda epoch: {name} if epoch % 2 else set()),
    ):
        now = model.get_parameter(name).clone()
        changed.append(not torch.equal(before, now))
        before = now
    assert changed == [False, True, False, True]
    assert set(frozen_gradients) == {True, False} and model.get_parameter(name).requires_grad


def test_an_extra_loss_is_added_to_the_cross_entropy(splits: Splits, gate: DeviceGate) -> None:
    """One full batch: w - lr * the gradient of the sum."""
    inputs, targets = tensors(splits)
    model: Any = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in model.parameters())
    outputs = inputs.flatten(1) @ weight.T + bias
    loss = nn.functional.cross_entropy(outputs, targets) + (outputs - inputs.mean()).square().mean()
    loss.backward()
    config = TrainingConfig(epochs=1, lr=0.5, momentum=0, weight_decay=0, batch_size=100, schedule="constant")
    retraining = Retraining(extra_loss=lambda images, outputs: (outputs - images.mean()).square().mean())
    plain = replace(splits, augment=None)
    list(train(model, plain, config, device=CPU, seed=0, gate=gate, retraining=retraining))
    assert torch.allclose(model[1].weight, weight - 0.5 * weight.grad, atol=1e-6)


def test_one_plain_step_agrees_with_the_formula(splits: Splits, gate: DeviceGate) -> None:
    """One full batch, SGD without momentum: w - lr * (gradient + decay * w), the bias undecayed."""
    plain = replace(splits, augment=None)
    inputs, targets = tensors(splits)
    model: Any = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in model.parameters())
    smoothed = 0.1 / 10 + 0.9 * nn.functional.one_hot(targets, 10)
    logits = inputs.flatten(1) @ weight.T + bias
    loss = -(smoothed * logits.log_softmax(1)).sum(1).mean()
    loss.backward()
    config = TrainingConfig(
        epochs=1, lr=0.5, momentum=0, weight_decay=0.01, batch_size=100, schedule="constant", label_smoothing=0.1
    )
    (epoch,) = run(model, plain, gate, config)
    assert math.isclose(epoch.loss, loss.item(), rel_tol=1e-5) and epoch.lr == 0.5
    assert torch.allclose(model[1].weight, weight - 0.5 * (weight.grad + 0.01 * weight), atol=1e-6)
    assert torch.allclose(model[1].bias, bias - 0.5 * bias.grad, atol=1e-6)


def test_the_moving_average_is_what_is_kept_and_evaluated(splits: Splits, gate: DeviceGate) -> None:
    """Steps of one batch, averaged by the formula; the training itself is that without averaging."""
    decay, config = 0.7, TrainingConfig(epochs=5, lr=0.05, batch_size=100, ema_decay=0.7)
    averaged, plain = network(), network()
    states = []
    for _ in train(plain, splits, config.model_copy(update={"ema_decay": None}), device=CPU, seed=0, gate=gate):
        states.append({key: value.clone() for key, value in plain.state_dict().items() if value.is_floating_point()})
    expected = states[0]
    for state in states[1:]:
        expected = {key: decay * expected[key] + (1 - decay) * state[key] for key in expected}
    history = run(averaged, splits, gate, config)
    for key, value in expected.items():
        torch.testing.assert_close(averaged.state_dict()[key], value)
    validation = splits.batches("validation", 50)
    assert history[-1].accuracy == evaluate(averaged, validation, CPU, gate)["accuracy"]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_computes_in_it_and_keeps_weights_in_single(
    precision: str, splits: Splits, gate: DeviceGate
) -> None:
    model: Any = network()
    seen = set()
    model[0].register_forward_hook(lambda *given: seen.add((given[0].training, given[2].dtype)))
    history = run(model, splits, gate, CONFIG.model_copy(update={"precision": precision, "epochs": 3}))
    exact = run(network(), splits, gate, CONFIG.model_copy(update={"epochs": 3}))
    assert seen == {(True, getattr(torch, precision)), (False, torch.float32)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert history[-1].loss == pytest.approx(exact[-1].loss, rel=0.05) and history[-1].loss != exact[-1].loss


def test_losses_are_scaled_in_half_precision_so_that_small_gradients_survive(gate: DeviceGate) -> None:
    """Predictions so sure that the gradient is half the smallest number of float16, which is 6e-8."""
    data = TensorDataset(torch.full((8, 4), 0.005), torch.zeros(8).long())
    splits = Splits("small", data, data, data, data, classes=2)
    config = TrainingConfig(epochs=1, lr=1e8, momentum=0, weight_decay=0, batch_size=8, schedule="constant")
    steps = []
    for precision in ("float32", "float16"):
        model: Any = nn.Sequential(nn.Linear(4, 2, bias=False))
        before = torch.tensor([[300.0], [-300.0]]).expand(2, 4)
        model[0].weight.data.copy_(before)
        run(model, splits, gate, config.model_copy(update={"precision": precision}))
        steps.append(model[0].weight.detach() - before)
    torch.testing.assert_close(steps[1], steps[0], rtol=0.05, atol=0)
    assert steps[0].abs().max() > 1


def test_only_deterministic_algorithms_are_used_where_asked_for(splits: Splits, gate: DeviceGate) -> None:
    model, seen = network(), set()
    model.register_forward_pre_hook(lambda *_: seen.add((model.training, torch.are_deterministic_algorithms_enabled())))
    run(model, splits, gate, TrainingConfig(epochs=1, deterministic=True))
    assert seen == {(True, True), (False, False)} and not torch.are_deterministic_algorithms_enabled()


def test_steps_wait_for_a_measurement(splits: Splits, gate: DeviceGate, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    model = network()
    work = DeviceGate.work
    entered = 0

    def counted(self: DeviceGate) -> AbstractContextManager[None]:
        nonlocal entered
        entered += 1
        return work(self)

    monkeypatch.setattr(DeviceGate, "work", counted)
    model.register_forward_pre_hook(lambda *_: held.append(entered))
    run(model, splits, gate, TrainingConfig(epochs=1, batch_size=25))
    assert held == list(range(1, 9))  # four steps and four validation batches, each in an entry of its own


def test_the_demo_network_learns_the_digits(gate: DeviceGate) -> None:
    """Three epochs of the demo's training; all twelve reach 98.9 % and more on the test split."""
    splits = load_data({"name": "digits"})
    torch.manual_seed(0)
    model = build_model({"name": "digits_resnet", "width": 16})
    history = run(model, splits, gate, TrainingConfig(epochs=3))
    assert history[-1].accuracy > 90
    assert history[-1].accuracy == evaluate(model, splits.batches("validation", 50), CPU, gate)["accuracy"]
    assert history[-1].loss < history[0].loss
    assert history[0].lr > history[1].lr > history[2].lr


class Hungry(nn.Module):
    """A linear network on a device whose memory holds so many images at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.most, self.exhausted = most, 0

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.most:
            self.exhausted += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        result: Tensor = self.body(inputs)
        return result


def test_exhausted_memory_is_met_by_accumulating_gradients(splits: Splits, gate: DeviceGate) -> None:
    short, ample = Hungry(most=9), Hungry(most=1000)

    for hungry in (short, ample):
        list(train(hungry, splits, CONFIG, device=CPU, seed=3, gate=gate))

    assert (short.exhausted, ample.exhausted) == (1, 0)
    for key, value in ample.state_dict().items():
        torch.testing.assert_close(short.state_dict()[key], value)


def test_memory_that_is_exhausted_even_so_is_the_trials_failure(splits: Splits, gate: DeviceGate) -> None:
    with pytest.raises(TrialFailedError, match=r"memory of cpu exhausted in epoch 1 .* in 4 parts"):
        list(train(Hungry(most=2), splits, CONFIG, device=CPU, seed=3, gate=gate))
