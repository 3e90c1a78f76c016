"""The MLflow server of ``cluster/kubernetes/tracking.yaml``, with its command and settings, on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import yaml

from tests.sweep.ray_nodes import free_port

MANIFEST = Path(__file__).parents[2] / "cluster" / "kubernetes" / "tracking.yaml"
USER, PASSWORD = "lrsearch", "another-password-that-only-these-tests-know"
CREDENTIALS = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}


class MLflowServer:
    """Keeps its runs in a database, artifacts in a folder, and asks for a password."""

    def __init__(self, folder, database, database_password):
        manifests = list(yaml.safe_load_all(MANIFEST.read_text()))
        (deployment,) = (m for m in manifests if m["kind"] == "Deployment")
        (settings,) = (m["data"]["auth.ini"] for m in manifests if m["kind"] == "ConfigMap")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        given = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        address = given["MLFLOW_BACKEND_STORE_URI"]
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log, self.folder = folder / "mlflow.log", folder
        (folder / "auth.ini").write_text(settings.replace(address, database))
        self._environment = os.environ | {
            **given,
            "HOME": str(folder),
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_BACKEND_STORE_URI": database,
            "PGPASSWORD": database_password,
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-key-that-only-these-tests-know",
            "MLFLOW_ARTIFACTS_DESTINATION": (folder / "artifacts").as_uri(),
        }
        program, *command = container["command"]
        assert program == "mlflow"
        here = {"0.0.0.0": "127.0.0.1", "5000": str(self.port)}
        hosts = container["args"][1].replace(":5000", f":{self.port}")
        options = [here.get(word, word) for word in command] + [container["args"][0], hosts, "--workers", "1"]
        self._command = [sys.executable, "-m", "mlflow", *options]
        self.start()

    def start(self):
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.2)

    def stop(self):
        """End it and its workers at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self):
        try:
            return urlopen(f"{self.uri}/health", timeout=5).status == 200
        except (URLError, OSError):
            return False
