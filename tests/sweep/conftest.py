import os
import sqlite3

import pytest
from sqlalchemy import Engine, event

from tests.sweep.postgresql import PostgreSQL


@pytest.fixture(autouse=True)
def no_power_is_lost(monkeypatch):
    """Simulated sweeps write thousands of small files; that these outlast the machine is not what they test."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    event.listen(Engine, "connect", _write_behind)
    yield
    event.remove(Engine, "connect", _write_behind)


def _write_behind(connection, _):
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session")
def postgresql():
    """A real PostgreSQL, shared by all tests that need one."""
    server = PostgreSQL()
    yield server
    server.remove()
