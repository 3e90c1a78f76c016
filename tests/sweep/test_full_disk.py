"""A disk that fills up under a sweep: it is put aside with one sentence and loses nothing."""

import subprocess

import pytest

from tests.sweep.test_kill import Sweep

pytestmark = pytest.mark.slow


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path, trials=3, at_once=1)


def test_sweep_on_a_full_disk_is_put_aside_and_goes_on_when_there_is_room(sweep, small_disk):
    subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
    driver = sweep.search()
    sweep.wait_for_new("trials/*/checkpoint.pt", driver)
    ballast = small_disk / "ballast"
    subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=4096"], capture_output=True)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 1, output
    assert output.splitlines()[-1].startswith("error: "), output
    assert output.splitlines()[-1].endswith("is full; make room and resume"), output
    ballast.unlink()
    sweep.take_stock()

    sweep.run_to_end("resume", "s")

    sweep.check_end()
