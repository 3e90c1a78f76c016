import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.factorize import Call
from lrsearch.measure import latency
from lrsearch.measure.deployment import Deployment
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.latency import LatencyTable
from lrsearch.recipe import Factorization

DENSE = Factorization(kind="dense", reason="whatever the reason")
HALF = Factorization(kind="svd", ranks=(8,))
QUARTER = Factorization(kind="svd", ranks=(4,))
CALLS = (Call(1, (6, 6), (6, 6)),)


class Clock:
    """Stands in for measuring: hands out set times and remembers what was asked."""

    def __init__(self) -> None:
        self.rounds: list[Any] = []
        self.asked: list[int] = []

    def __call__(self, runs: Sequence[Callable[[], object]], device: torch.device, **_: Any) -> Any:
        for run in runs:
            run()
        self.asked.append(len(runs))
        return np.array(self.rounds.pop(0))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(latency, "interleaved", fake)
    return fake


def layer() -> nn.Conv2d:
    return nn.Conv2d(16, 16, 3, padding=1)


def test_times_are_medians_with_their_median_deviation(clock: Clock) -> None:
    clock.rounds = [[[5.0, 1.0], [4.0, 2.0], [90.0, 2.5]]]
    dense, half = LatencyTable().timings(layer(), CALLS, [DENSE, HALF])
    assert (dense.median, half.median) == (5.0, 2.0) and dense.deviation == pytest.approx(2 * half.deviation)


def test_the_deviation_is_the_standard_error_of_the_median(clock: Clock) -> None:
    drawn = np.random.default_rng(0).normal(10, 1, (2000, 30, 2))
    clock.rounds = [drawn[0]]
    (timing,) = LatencyTable().timings(layer(), CALLS, [HALF])
    assert timing.deviation == pytest.approx(np.median(drawn[:, :, 1], axis=1).std(), rel=0.5)


def test_what_is_measured_later_is_brought_to_the_scale_of_the_first_dense_time(clock: Clock) -> None:
    clock.rounds = [[[4.0, 2.0]], [[8.0, 1.0]]]
    table = LatencyTable()
    table.timings(layer(), CALLS, [HALF])
    dense, half, quarter = table.timings(layer(), CALLS, [DENSE, HALF, QUARTER])
    assert (dense.median, half.median, quarter.median) == (4.0, 2.0, 0.5)
    assert clock.asked == [2, 2], "what is known is not measured again"


def test_equal_layers_are_measured_once_and_different_ones_apart(clock: Clock) -> None:
    clock.rounds = [[[1.0, 1.0]]] * 5
    table = LatencyTable()
    wider = nn.Conv2d(16, 20, 3, padding=1)
    strided = nn.Conv2d(16, 16, 3, padding=1, stride=2)
    for module in (layer(), layer(), wider, strided):
        table.timings(module, CALLS, [HALF])
    table.timings(layer(), (Call(1, (9, 9), (9, 9)),), [HALF])
    assert len(clock.asked) == 4


def test_processes_share_a_file_and_another_deployment_has_its_own_entries(clock: Clock, tmp_path: Path) -> None:
    clock.rounds = [[[4.0, 2.0]], [[6.0, 3.0]]]
    first = LatencyTable(Deployment(2), folder=tmp_path).timings(layer(), CALLS, [HALF])
    assert LatencyTable(Deployment(2), folder=tmp_path).timings(layer(), CALLS, [HALF]) == first
    other = LatencyTable(Deployment(2, channels_last=True), folder=tmp_path).timings(layer(), CALLS, [HALF])
    assert other[0].median == 3.0 and len(clock.asked) == 2
    (file,) = tmp_path.glob("latency-*.json")
    assert torch.__version__.split("+")[0] in file.name and len(json.loads(file.read_text())) == 2


def test_what_another_process_measured_needs_no_device_and_is_not_written_again(clock: Clock, tmp_path: Path) -> None:
    class Busy(DeviceGate):
        def measurement(self) -> Any:
            raise AssertionError("somebody else works on the device")

    clock.rounds = [[[4.0, 2.0]]]
    first = LatencyTable(folder=tmp_path).timings(layer(), CALLS, [HALF])
    (file,) = tmp_path.glob("latency-*.json")
    written = file.stat()
    assert LatencyTable(gate=Busy("cpu", tmp_path), folder=tmp_path).timings(layer(), CALLS, [HALF]) == first
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (written.st_mtime_ns, written.st_ino)


def test_a_damaged_file_is_named(tmp_path: Path, clock: Clock) -> None:
    clock.rounds = [[[4.0, 2.0]]]
    LatencyTable(folder=tmp_path).timings(layer(), CALLS, [HALF])
    (file,) = tmp_path.glob("latency-*.json")
    file.write_text("{")
    with pytest.raises(LrsearchError, match=r"latency.*damaged.*delete it to measure again"):
        LatencyTable(folder=tmp_path).timings(layer(), CALLS, [HALF])


def test_measuring_within_work_waits_for_nobody(tmp_path: Path) -> None:
    gate = DeviceGate("cpu", tmp_path)
    with gate.work():
        times = LatencyTable(Deployment(1), gate).timings(layer(), CALLS, [DENSE, HALF])
    assert all(time.median > 0 for time in times)


@pytest.mark.parametrize(
    "module", [nn.Linear(16, 16), nn.Conv2d(16, 16, 3, groups=2), nn.Conv2d(16, 16, 1, bias=False).bfloat16()]
)
def test_layers_are_left_as_they_are(module: nn.Module) -> None:
    state, random_state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    module.train()
    calls = (Call(3, (1, 1), (1, 1)),) if isinstance(module, nn.Linear) else CALLS
    timings = LatencyTable(Deployment(2, dtype="bfloat16")).timings(module, calls, [DENSE, QUARTER])
    assert all(time.median > 0 for time in timings)
    assert module.training and torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_shares_of_a_network_follow_the_work_and_leave_no_hook() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 2, 1)
    )
    shares = LatencyTable(Deployment(4)).shares(model, ["0", "2", "3"], torch.randn(1, 3, 24, 24))
    assert shares["2"] > shares["0"] > 0 and shares["2"] > shares["3"] > 0
    assert sum(shares.values()) < 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_layer_that_is_not_called_takes_nothing() -> None:
    class Idle(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self[0](x)
            return output

    shares = LatencyTable(Deployment(1)).shares(Idle(nn.Linear(4, 4), nn.Linear(4, 4)), ["0", "1"], torch.randn(1, 4))
    assert shares["0"] > 0 and shares["1"] == 0
