"""The network of every method, in every format, run where neither lrsearch nor what it needs can be imported."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from lrsearch.export import FORMATS, export_network
from lrsearch.methods import method_names
from tests.methods.zoo import compress, images, zoo

SIZES = (1, 3, 8)
BARRED = ["lrsearch", "safetensors", "torchvision", "tensorly", "pydantic", "ray", "optuna", "mlflow", "torch_pruning"]
RUN = """
import json, sys
from pathlib import Path
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None
import numpy as np
batches = [np.load(f"{size}.npy") for size in json.loads(sys.argv[2])]
"""
WITH_TORCH = """
import importlib.util, torch

def load(path):
    if path.name == "exported-program":
        return torch.export.load(path).module()
    spec = importlib.util.spec_from_file_location("model", path / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()

with torch.no_grad():
    for path in sorted([*Path().glob("*/torch"), *Path().glob("*/exported-program")]):
        network = load(path)
        outputs = [network(torch.from_numpy(batch)).numpy() for batch in batches]
        np.savez(path.parent / f"{path.name}.npz", *outputs)
"""
WITH_ONNXRUNTIME = """
import onnxruntime
for path in sorted(Path().glob("*/onnx")):
    session = onnxruntime.InferenceSession(path)
    np.savez(path.parent / "onnx.npz", *[session.run(None, {"images": batch})[0] for batch in batches])
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder per method with what the formats make of its network and what they say of batches of three sizes."""
    folder = tmp_path_factory.mktemp("exported")
    batches = {size: images(size).float() for size in SIZES}
    for size, batch in batches.items():
        np.save(folder / f"{size}.npy", batch.numpy())
    for method in method_names():
        network = compress(method, {"budget": {"params": 0.6}}, zoo()).model.float().eval()
        for format in FORMATS:
            export_network(network, batches[1], folder / method / format, format)
        with torch.no_grad():
            np.savez(folder / method / "expected.npz", *[network(batch).numpy() for batch in batches.values()])
    for program, barred in ((WITH_TORCH, BARRED), (WITH_ONNXRUNTIME, [*BARRED, "torch", "onnx"])):
        command = [sys.executable, "-c", RUN + program, json.dumps(barred), json.dumps(SIZES)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("method", method_names())
def test_outputs_are_the_networks_own(written, method, format):
    said, expected = (np.load(written / method / f"{name}.npz") for name in (format, "expected"))

    for key, size in zip(expected.files, SIZES, strict=True):
        assert said[key].shape == (size, 10)
        np.testing.assert_allclose(said[key], expected[key], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", method_names())
def test_batch_norm_is_folded(written, method):
    assert "BatchNorm" not in (written / method / "torch" / "model.py").read_text()
    assert "batch_norm" not in torch.export.load(written / method / "exported-program").graph_module.code
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(written / method / "onnx").graph.node}
