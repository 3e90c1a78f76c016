"""What was written runs where lrsearch is not installed, and says the same."""

import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from lrsearch import compress
from lrsearch.errors import LrsearchError
from lrsearch.export import FORMATS, export_network
from lrsearch.models import build_model

RUN = {
    "torch": "from model import load; model = load()",
    "exported-program": "model = torch.export.load('network').module()",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession('network')
model = lambda images: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
""",
}
CLEAN = """
import sys
for name in ('lrsearch', 'safetensors', 'torchvision', 'tensorly', 'pydantic', 'ray', 'optuna', 'mlflow'):
    sys.modules[name] = None
import torch
{run}
inputs = torch.load('inputs.pt', weights_only=True)
with torch.no_grad():
    torch.save([model(batch) for batch in inputs], 'outputs.pt')
"""


def randomised(model: nn.Module) -> nn.Module:
    """Batch norm that does something."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()


def run_elsewhere(folder, format, inputs):
    torch.save(inputs, folder / "inputs.pt")
    where = folder / "network" if format == "torch" else folder
    (where / "inputs.pt").write_bytes((folder / "inputs.pt").read_bytes()) if where != folder else None
    program = CLEAN.format(run=RUN[format])
    done = subprocess.run([sys.executable, "-c", program], cwd=where, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return torch.load(where / "outputs.pt", weights_only=True)


@pytest.mark.parametrize("format", FORMATS)
def test_written_network_says_the_same_without_lrsearch(tmp_path, format):
    torch.manual_seed(0)
    model = randomised(build_model({"name": "digits_resnet", "width": 8}))
    small = compress(model, "alds", {"params": 0.5}, example_input=torch.zeros(1, 1, 8, 8)).model
    before = {key: value.clone() for key, value in small.state_dict().items()}
    inputs = [torch.randn(size, 1, 8, 8) for size in (1, 3, 8)]

    difference = export_network(small, inputs[0], tmp_path / "network", format)

    assert difference <= 1e-4
    for written, batch in zip(run_elsewhere(tmp_path, format, inputs), inputs, strict=True):
        torch.testing.assert_close(written, small(batch), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())


@pytest.mark.parametrize(("name", "size"), [("vit_b_16", 32), ("mobilenet_v3_small", 32), ("densenet121", 32)])
def test_torchvision_networks_become_plain_modules(tmp_path, name, size):
    torch.manual_seed(0)
    kwargs = {"image_size": size} if name == "vit_b_16" else {}
    model = randomised(torchvision.models.get_model(name, weights=None, **kwargs))

    assert export_network(model, torch.zeros(1, 3, size, size), tmp_path, "torch") <= 1e-4


class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_is_one_sentence(tmp_path):
    with pytest.raises(LrsearchError, match="cannot be traced"):
        export_network(Undecided(), torch.zeros(1, 3), tmp_path / "x", "torch")
    assert not list(tmp_path.iterdir())


def test_layer_that_is_not_pytorchs_is_named(tmp_path):
    class Mine(nn.Linear):
        pass

    Mine.__module__ = "torch.nn.mine"  # so that it is not traced through
    with pytest.raises(LrsearchError, match=r"layer .0. is a torch\.nn\.mine\.Mine"):
        export_network(nn.Sequential(Mine(3, 2)), torch.zeros(1, 3), tmp_path, "torch")


def test_network_that_is_not_the_same_every_time_is_refused(tmp_path):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    with pytest.raises(LrsearchError, match="differ by"):
        export_network(Noisy(), torch.zeros(1, 3), tmp_path, "torch")
