"""What was written says the same as the network; ``test_every_method.py`` loads it where lrsearch is not installed."""

import importlib.util

import onnxruntime
import pytest
import torch
import torchvision
from torch import nn

from lrsearch import compress
from lrsearch.errors import LrsearchError
from lrsearch.export import FORMATS, export_network
from lrsearch.models import build_model


def load_plain(folder):
    spec = importlib.util.spec_from_file_location("plain", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def load_onnx(path):
    session = onnxruntime.InferenceSession(path)
    (name,) = (each.name for each in session.get_inputs())
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


LOAD = {"torch": load_plain, "exported-program": lambda path: torch.export.load(path).module(), "onnx": load_onnx}


def randomised(model: nn.Module) -> nn.Module:
    """Batch norm that does something."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()


@pytest.mark.parametrize("format", FORMATS)
def test_written_network_says_the_same_for_any_batch(tmp_path, format):
    torch.manual_seed(0)
    model = randomised(build_model({"name": "digits_resnet", "width": 8}))
    small = compress(model, "alds", {"params": 0.5}, example_input=torch.zeros(1, 1, 8, 8)).model
    before = {key: value.clone() for key, value in small.state_dict().items()}
    inputs = [torch.randn(size, 1, 8, 8) for size in (1, 3, 8)]

    difference = export_network(small, inputs[0], tmp_path / "network", format)

    assert difference <= 1e-4
    written = LOAD[format](tmp_path / "network")
    for batch in inputs:
        torch.testing.assert_close(written(batch), small(batch), rtol=1e-4, atol=1e-4)
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
