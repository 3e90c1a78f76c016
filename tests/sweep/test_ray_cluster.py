"""Which clusters a driver may join."""

import pytest

from lrsearch.errors import LrsearchError
from lrsearch.sweep.cluster import connected


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_cluster_that_this_machine_is_not_part_of_is_for_submit(address):
    with pytest.raises(LrsearchError, match=r"expected auto or host:port .* lrsearch submit"), connected(address):
        pass
