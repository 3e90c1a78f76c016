"""The README's way of starting a cluster by hand, followed word by word on fresh machines."""

import re
import shutil
from pathlib import Path

import pytest

from tests.cluster.machines import Machine
from tests.sweep.network import HEAD, WORKER, Cable

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README[README.index("## On many machines") : README.index("## What is trusted")]
BLOCKS = re.findall(r"^```\n(.*?)^```", SECTION, flags=re.DOTALL | re.MULTILINE)
SPACE = """
model: {name: digits_resnet, width: 4}
data: {name: digits}
train: {epochs: 1}
retrain: {epochs: 1}
objectives: {accuracy: max, params: min}
methods: {svd: {}}
measure: {seconds: 0.1}
"""


@pytest.fixture
def machines(tmp_path):
    """The head, another machine, and a laptop to which the head's ports are forwarded."""
    if shutil.which("nsenter") is None:
        pytest.skip("util-linux is not installed")
    cable = Cable()
    ends = {"head": HEAD, "other": WORKER, "laptop": HEAD}
    made = [Machine(tmp_path, name, cable.inside(end)) for name, end in ends.items()]
    yield made
    for machine in made:
        machine.stop()
    cable.remove()


def test_section_on_many_machines_followed_word_by_word(machines, tmp_path):
    """With names of its own where it has HEAD, NAME and a folder that all machines mount."""
    head, other, laptop = machines
    shared = tmp_path / "shared"
    by_hand, from_a_laptop = (block.replace("/shared", str(shared)).replace("HEAD", HEAD) for block in BLOCKS)
    start, join, search = by_hand.splitlines()
    generate = re.search(r"`(ray get-auth-token [^`]*)`", SECTION).group(1)
    head.run(f"{generate}; chmod 600 ~/.ray/auth_token")
    for machine in (other, laptop):
        machine.run(f"mkdir ~/.ray; cp -p {head.home}/.ray/auth_token ~/.ray")
    (other.project / "SPACE.yaml").write_text(f"{SPACE}search: {{trials: 1}}\n")
    (laptop.project / "SPACE.yaml").write_text(f"{SPACE}search: {{trials: 2}}\n")

    head.run(start)
    other.run(join)
    other.run(search)
    told = laptop.run(from_a_laptop.replace("NAME", "SPACE"))

    assert sorted(path.parent.name for path in shared.glob("lrsearch_runs/SPACE/trials/*/result.json")) == list("01")
    assert re.search(r"^SPACE +2 +2 ", told, flags=re.MULTILINE), told  # its status: trials and how many have finished
    assert told.count("images/s") == 2  # the front, at the end of the sweep and when it is asked for
