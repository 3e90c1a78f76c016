"""Which clusters a driver may join."""

import subprocess
import sys

import pytest

from lrsearch.errors import LrsearchError
from lrsearch.sweep.cluster import connected


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_cluster_that_this_machine_is_not_part_of_is_for_submit(address):
    with pytest.raises(LrsearchError, match=r"expected auto or host:port .* lrsearch submit"), connected(address):
        pass


IMPORTED_FIRST = """
import ray
from ray._raylet import AuthenticationMode, get_authentication_mode
from lrsearch.sweep.cluster import connected

ray.init = lambda **_: print(get_authentication_mode() == AuthenticationMode.TOKEN)
with connected(None):
    pass
"""


def test_token_is_asked_for_though_ray_was_imported_before_lrsearch(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    done = subprocess.run([sys.executable, "-c", IMPORTED_FIRST], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
