"""Compressed networks as MLflow models: with a signature and an example, and nothing pickled in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lrsearch.compression import Watch, watched
from lrsearch.errors import LrsearchError
from lrsearch.export.formats import without_chatter
from lrsearch.factorize.folding import fold_batch_norm
from lrsearch.object_storage import fetch
from lrsearch.outcome import read_result
from lrsearch.persistence import rebuild
from lrsearch.tracking.store import connect, first_line, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "knee"
"""Of a registered model's version that is the knee of a front."""
NAME = "model"
"""Of the logged model of a run."""
TOLERANCE = 1e-4
"""Largest difference of an output, relative to the largest output."""


def save_model(network: Path, out: Path) -> float:
    """Write a trial's network as a folder that ``mlflow.pytorch.load_model`` and ``mlflow.pyfunc.load_model`` read.

    Returns:
        The largest difference between outputs of the network and of what was written, relative to the largest.

    Raises:
        LrsearchError: ``out`` exists, or the network cannot be written.
    """
    if out.exists():
        raise LrsearchError(f"--out {out} exists, expected a folder to be made")
    from mlflow import pytorch

    with _plain_errors(network):
        pytorch.save_model(path=str(out), **_arguments(network))
        return _verify(network, str(out))


def log_models(
    uri: str | None,
    storage: Path,
    networks: Mapping[str, Path],
    register: str | None = None,
    knee: str | None = None,
    watch: Watch | None = None,
) -> dict[str, str]:
    """Log networks as models of the runs of their trials; those that were logged before are left as they are.

    Args:
        uri: of the store, as ``connect`` takes it.
        storage: the folder of all sweeps.
        networks: id of a run -> folder of its trial.
        register: name of a registered model that gets a version for ``knee``, with the alias ``knee``.
        knee: id of the run to register.
        watch: told of each network.

    Returns:
        Id of a run -> URI of its model, which ``mlflow.pytorch.load_model`` takes.

    Raises:
        LrsearchError: the store cannot be opened, or a network cannot be written.
    """
    client = connect(uri, storage)
    with _at(tracking_uri(uri, storage)):
        logged = {
            run_id: _log_once(client, run_id, folder)
            for run_id, folder in watched(networks.items(), len(networks), watch)
        }
        if register is not None and knee is not None:
            _register(client, logged[knee], register)
    return logged


def _log_once(client: MlflowClient, run_id: str, network: Path) -> str:
    from mlflow import pytorch
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    run = client.get_run(run_id)
    for known in run.outputs.model_outputs if run.outputs is not None else ():
        if client.get_logged_model(known.model_id).status == LoggedModelStatus.READY:
            return f"models:/{known.model_id}"
    fetch(network)
    with _plain_errors(network):
        arguments = _arguments(network)
        model = client.create_logged_model(run.info.experiment_id, NAME, run_id, params=run.data.params)
        arguments["validate_serving_input"] = False  # MLflow would load it once more, to look at less than is verified
        written = Model.log(artifact_path=None, flavor=pytorch, run_id=run_id, model_id=model.model_id, **arguments)
        _verify(network, written.model_uri)
    return str(written.model_uri)


def _register(client: MlflowClient, model_uri: str, name: str) -> None:
    import mlflow

    for version in client.search_model_versions(f"name = '{name}'"):
        if version.source == model_uri:
            break
    else:
        with without_chatter():
            version = mlflow.register_model(model_uri, name)
    client.set_registered_model_alias(name, ALIAS, version.version)


def _arguments(network: Path) -> dict[str, Any]:
    """What MLflow's PyTorch flavor is told; its ``pt2`` format holds the exported graph and tensors, and no pickles."""
    from mlflow.models import infer_signature

    model, inputs = fold_batch_norm(rebuild(network)), _inputs(network, 2)
    with torch.no_grad():
        outputs = model(inputs)
    return {
        "pytorch_model": model,
        "signature": infer_signature(inputs.numpy(), outputs.numpy()),
        "input_example": inputs.numpy(),
        "serialization_format": "pt2",
        "pip_requirements": [f"torch=={torch.__version__.partition('+')[0]}", "numpy"],
    }


def _inputs(network: Path, images: int) -> torch.Tensor:
    shape = (read_result(network) or {}).get("input_shape")
    if shape is None:
        raise LrsearchError(f"{network} does not say of what shape its inputs are, expected the folder of a trial")
    return torch.randn(images, *shape, generator=torch.Generator().manual_seed(0))


def _verify(network: Path, model_uri: str) -> float:
    """Compare what was written with the network, on a batch of another size than it was written with."""
    from mlflow import pytorch

    inputs = _inputs(network, 5)
    with torch.no_grad():
        expected, written = rebuild(network)(inputs), pytorch.load_model(model_uri)(inputs)
    difference = float((written - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= TOLERANCE:
        raise LrsearchError(f"the logged outputs differ by {difference:.2g} of the largest, expected {TOLERANCE:g}")
    return difference


@contextmanager
def _plain_errors(network: Path) -> Iterator[None]:
    """MLflow's and the exporter's errors as one sentence; their chatter not at all."""
    try:
        with without_chatter():
            yield
    except LrsearchError:
        raise
    except Exception as error:
        raise LrsearchError(f"{network} cannot be written as an MLflow model: {first_line(error)}") from error


@contextmanager
def _at(uri: str) -> Iterator[None]:
    """Models are logged by functions that know the store by a global setting."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
