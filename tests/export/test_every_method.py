"""The network of every method, in every format, run where nothing but PyTorch or ONNX Runtime is installed."""

import json
import subprocess

import numpy as np
import onnx
import pytest
import torch

from lrsearch.export import FORMATS, export_network
from lrsearch.methods import method_names
from tests.export.clean_environment import closure, make_environment
from tests.methods.zoo import compress, images, zoo

SIZES = (1, 3, 8)
RUN = """
import importlib.metadata, importlib.util, json, sys
from pathlib import Path
import numpy as np

sizes, installed = json.loads(sys.argv[1]), json.loads(sys.argv[2])
found = sorted(d.metadata["Name"].lower().replace("_", "-") for d in importlib.metadata.distributions())
assert found == installed, (found, installed)
assert importlib.util.find_spec("lrsearch") is None
batches = [np.load(f"{size}.npy") for size in sizes]
"""
WITH_TORCH = """
import torch

def load(path):
    if path.name == "exported-program":
        program = torch.export.load(path)
        path.with_suffix(".txt").write_text(program.graph_module.code)
        return program.module()
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
PROGRAMS = {("torch", "numpy"): WITH_TORCH, ("onnxruntime", "numpy"): WITH_ONNXRUNTIME}


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
    for packages, program in PROGRAMS.items():
        python = make_environment(tmp_path_factory.mktemp(packages[0]), *packages)
        arguments = [json.dumps(SIZES), json.dumps(sorted(closure(*packages)))]
        command = [python, "-I", "-c", RUN + program, *arguments]
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
    assert "batch_norm" not in (written / method / "exported-program.txt").read_text()
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(written / method / "onnx").graph.node}
