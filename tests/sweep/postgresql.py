"""A PostgreSQL server of the tests' own: started on a free port, stopped and started again at will."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.sweep.ray_nodes import free_port

PASSWORD = "a-password-that-only-these-tests-know"


def binary(name):
    """One of the server's programs, which Debian keeps off the path; skips the test where they are missing."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(debian[-1]) if debian else shutil.which(name)
    if found is None:
        pytest.skip("PostgreSQL's server is not installed (apt-get install postgresql)")
    return found


class PostgreSQL:
    """One server with a user ``lrsearch``, who has to give ``PASSWORD``, in a temporary folder of its own."""

    def __init__(self):
        initdb, self._control = binary("initdb"), binary("pg_ctl")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._user = _ordinary_user()
        if self._user:
            shutil.chown(self.folder, self._user)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        cluster = ["--pgdata", str(self.folder / "data"), "--username", "lrsearch", "--encoding", "UTF8"]
        self._run(initdb, *cluster, "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync", "--no-locale")
        password.unlink()
        self.start()

    def start(self):
        options = f"-p {self.port} -k {self.folder} -h 127.0.0.1 -c fsync=off"
        log = str(self.folder / "log")
        self._run(self._control, "start", "-w", "-D", str(self.folder / "data"), "-l", log, "-o", options)

    def stop(self):
        """Cut every connection off, as when the machine dies; committed data stays."""
        self._run(self._control, "stop", "-w", "-D", str(self.folder / "data"), "-m", "immediate")

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder)

    def create(self, database):
        """A new database; its address, without the password, which ``PGPASSWORD`` has."""
        import psycopg

        address = f"host=127.0.0.1 port={self.port} user=lrsearch password={PASSWORD} dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return f"postgresql+psycopg://lrsearch@127.0.0.1:{self.port}/{database}"

    def _run(self, *command):
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, user=self._user, cwd=self.folder
        )
        assert done.returncode == 0, done.stdout


def _ordinary_user():
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)
