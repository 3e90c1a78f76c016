"""What several tests share."""

import os
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("LRSEARCH_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with CIFAR-10 as JPEG files and trained ResNet-20 weights, where a machine has one."""
    return REAL_DATA
