import os

import pytest


@pytest.fixture(autouse=True)
def no_power_is_lost(monkeypatch):
    """Simulated sweeps write thousands of small files; that these outlast the machine is not what they test."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
