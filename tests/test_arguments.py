import pytest

from lrsearch.arguments import parse_budget
from lrsearch.errors import LrsearchError


def test_a_budget_has_one_resource_or_several() -> None:
    assert parse_budget("params=0.5") == {"params": 0.5}
    assert parse_budget("params=0.5, flops=0.6") == {"params": 0.5, "flops": 0.6}
    with pytest.raises(LrsearchError, match=r"--budget is 'params=0.5,flops', expected params=F or flops=F or both"):
        parse_budget("params=0.5,flops")
