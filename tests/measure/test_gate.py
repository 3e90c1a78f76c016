import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from lrsearch.errors import LrsearchError
from lrsearch.measure.gate import DeviceGate

PATIENCE = 30.0
"""Seconds until a wait that should succeed counts as failed; generous, since the machine may be busy."""
MOMENT = 0.3
"""Seconds in which something that must not happen is given the chance to."""

context = multiprocessing.get_context("fork")
start = Callable[..., BaseProcess]


@pytest.fixture
def run() -> Iterator[start]:
    """Start a function in a process of its own, killed when the test ends."""
    processes = []

    def launch(function: Callable[..., object], *arguments: object) -> BaseProcess:
        process = context.Process(target=function, args=arguments)
        process.start()
        processes.append(process)
        return process

    yield launch
    for process in processes:
        process.kill()
        process.join()


def hold(folder: Path, kind: str, entered: Event, leave: Event) -> None:
    with getattr(DeviceGate("cpu", folder), kind)():
        entered.set()
        leave.wait()


def work_for_ever(folder: Path, steps: "Synchronized[int]") -> None:
    gate = DeviceGate("cpu", folder)
    while True:
        with gate.work():
            time.sleep(0.002)
            with steps.get_lock():
                steps.value += 1


@pytest.mark.parametrize(
    ("first", "second"), [("work", "measurement"), ("measurement", "work"), ("measurement", "measurement")]
)
def test_a_measurement_shares_the_device_with_nobody(first: str, second: str, tmp_path: Path, run: start) -> None:
    entered, leave, entered_second = context.Event(), context.Event(), context.Event()
    run(hold, tmp_path, first, entered, leave)
    assert entered.wait(PATIENCE)
    run(hold, tmp_path, second, entered_second, leave)
    assert not entered_second.wait(MOMENT)
    leave.set()
    assert entered_second.wait(PATIENCE)


def test_many_work_at_once(tmp_path: Path, run: start) -> None:
    leave = context.Event()
    entered = [context.Event() for _ in range(8)]
    for event in entered:
        run(hold, tmp_path, "work", event, leave)
    assert all(event.wait(PATIENCE) for event in entered)


def test_devices_do_not_block_each_other(tmp_path: Path) -> None:
    with DeviceGate("cpu", tmp_path).measurement(), DeviceGate("meta", tmp_path).measurement():
        pass


def test_steps_that_never_cease_do_not_starve_a_measurement(tmp_path: Path, run: start) -> None:
    steps = context.Value("l", 0)
    for _ in range(4):
        run(work_for_ever, tmp_path, steps)
    gate = DeviceGate("cpu", tmp_path)
    deadline = time.monotonic() + PATIENCE
    while steps.value < 20:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(5):
        asked = time.monotonic()
        with gate.measurement():
            assert time.monotonic() - asked < PATIENCE / 5
            before = steps.value
            time.sleep(0.05)
            assert steps.value == before
    after = steps.value
    while steps.value == after:
        assert time.monotonic() < deadline + PATIENCE
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["work", "measurement"])
def test_killing_a_holder_frees_the_device(kind: str, tmp_path: Path, run: start) -> None:
    entered, leave = context.Event(), context.Event()
    holder = run(hold, tmp_path, kind, entered, leave)
    assert entered.wait(PATIENCE)
    holder.kill()
    entered_next = context.Event()
    run(hold, tmp_path, "measurement", entered_next, leave)
    assert entered_next.wait(PATIENCE)


def test_killing_a_waiting_measurement_lets_work_go_on(tmp_path: Path, run: start) -> None:
    entered, leave, never = context.Event(), context.Event(), context.Event()
    run(hold, tmp_path, "work", entered, leave)
    assert entered.wait(PATIENCE)
    waiting = run(hold, tmp_path, "measurement", never, leave)
    entered_next = context.Event()
    time.sleep(MOMENT)
    run(hold, tmp_path, "work", entered_next, leave)
    assert not entered_next.wait(MOMENT)
    waiting.kill()
    assert entered_next.wait(PATIENCE)


@pytest.mark.parametrize("kind", ["work", "measurement"])
def test_an_exception_inside_frees_the_device(kind: str, tmp_path: Path) -> None:
    gate = DeviceGate("cpu", tmp_path)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), getattr(gate, kind)():
            raise ZeroDivisionError
    with gate.measurement():
        pass


def test_a_process_forked_between_steps_keeps_no_lock(tmp_path: Path, run: start) -> None:
    gate = DeviceGate("cpu", tmp_path)
    with gate.work():
        pass
    run(time.sleep, PATIENCE)
    with gate.measurement():
        pass


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LrsearchError, match=r"file/locks .*Not a directory"):
        DeviceGate("cpu", tmp_path / "file" / "locks")


def test_measuring_within_work_holds_the_device_alone_and_work_goes_on_afterwards(tmp_path: Path, run: start) -> None:
    leave = context.Event()
    entered, begin = ([context.Event(), context.Event()] for _ in range(2))
    for kind, event, signal in zip(("work", "measurement"), entered, begin, strict=True):
        run(hold_after, signal, tmp_path, kind, event, leave)  # here, for a fork inside would inherit the lock
    gate = DeviceGate("cpu", tmp_path)
    with gate.work():
        with gate.measurement():
            begin[0].set()
            assert not entered[0].wait(MOMENT)
        assert entered[0].wait(PATIENCE)
        leave.set()
        begin[1].set()
        assert not entered[1].wait(MOMENT)
    assert entered[1].wait(PATIENCE)


def hold_after(signal: Event, folder: Path, kind: str, entered: Event, leave: Event) -> None:
    signal.wait()
    hold(folder, kind, entered, leave)
