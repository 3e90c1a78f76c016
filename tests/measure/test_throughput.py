import random
import time

import pytest
import torch
from torch import Tensor, nn

from lrsearch.measure.throughput import measure_throughput


class Repeated(nn.Module):
    """Runs a network several times for the same output."""

    def __init__(self, network: nn.Module, times: int) -> None:
        super().__init__()
        self.network = network
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times - 1):
            self.network(x)
        output: Tensor = self.network(x)
        return output


class Sleeping(nn.Module):
    """Takes a known time and no processor."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return x


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3))


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(8, 3, 16, 16)


def test_a_network_is_as_fast_as_itself(inputs: Tensor) -> None:
    model = network()
    result = measure_throughput(model, model, inputs, seconds=1)
    assert result.speedup == pytest.approx(1, abs=0.25)
    assert result.images_per_second / result.dense_images_per_second == pytest.approx(1, abs=0.35)


def test_doing_the_work_three_times_is_found_out_in_either_place(inputs: Tensor) -> None:
    model = network()
    assert 0.2 < measure_throughput(Repeated(model, 3), model, inputs, seconds=1).speedup < 0.55
    assert 1.8 < measure_throughput(model, Repeated(model, 3), inputs, seconds=1).speedup < 5


@pytest.mark.parametrize("backwards", [False, True])
def test_images_per_second_are_those_of_a_network_of_known_speed(
    backwards: bool, inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random.Random, "shuffle", lambda _, turns: turns.sort(reverse=backwards))
    result = measure_throughput(Sleeping(0.01), Sleeping(0.02), inputs, seconds=1)
    assert 0.5 * 800 < result.images_per_second <= 800
    assert 0.5 * 400 < result.dense_images_per_second <= 400
    assert 1.3 < result.speedup < 3 and result.spread < 0.5


def test_it_takes_the_time_it_was_given(inputs: Tensor) -> None:
    model = network()
    started = time.monotonic()
    measure_throughput(model, model, inputs, seconds=0.5)
    assert 0.5 <= time.monotonic() - started < 5


def test_slow_networks_get_five_pairs_at_least(inputs: Tensor) -> None:
    started = time.monotonic()
    result = measure_throughput(Sleeping(0.1), Sleeping(0.1), inputs, seconds=0.01)
    assert time.monotonic() - started >= 1
    assert result.speedup == pytest.approx(1, abs=0.3)


def test_modes_statistics_threads_and_randomness_are_left_alone(inputs: Tensor) -> None:
    model, dense = network().train(), network().train()
    model[1].eval()
    before = {key: value.clone() for key, value in dense.state_dict().items()}
    modes = [module.training for module in [*model.modules(), *dense.modules()]]
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    measure_throughput(model, dense, inputs, seconds=0.1)
    assert [module.training for module in [*model.modules(), *dense.modules()]] == modes
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in dense.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_timed_until_its_kernels_have_run() -> None:
    model = nn.Sequential(nn.Conv2d(64, 256, 3), nn.Conv2d(256, 64, 3)).cuda()
    inputs = torch.randn(64, 64, 64, 64, device="cuda")
    speedup = measure_throughput(Repeated(model, 3), model, inputs, seconds=1).speedup
    assert speedup == pytest.approx(1 / 3, rel=0.1)


def test_a_reference_counts_by_image(inputs: Tensor) -> None:
    """The reference needs as long for twice the images: the network, as fast as dense, is half as fast as it."""
    result = measure_throughput(
        Sleeping(0.01), Sleeping(0.01), inputs, seconds=0.5, reference=(Sleeping(0.01), torch.cat([inputs, inputs]))
    )
    assert result.speedup == pytest.approx(1, abs=0.3) and result.reference_speedup == pytest.approx(0.5, abs=0.15)
    alone = measure_throughput(Sleeping(0.01), Sleeping(0.02), inputs, seconds=0.2)
    assert alone.reference_speedup == alone.speedup
