import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.models import build_model, model_names


@pytest.mark.parametrize(
    ("config", "shape", "parameters"),
    [
        ({"name": "digits_resnet"}, (1, 8, 8), 308_074),
        ({"name": "digits_resnet", "bottlenecks": True}, (1, 8, 8), 499_434),
        ({"name": "digits_resnet", "width": 4, "num_classes": 3}, (1, 8, 8), None),
        ({"name": "digits_mlp", "width": 16, "depth": 2}, (1, 8, 8), 65 * 16 + 17 * 10),
        ({"name": "digits_mlp", "depth": 1}, (1, 8, 8), 650),
        ({"name": "resnet20"}, (3, 32, 32), 269_722),
        ({"name": "resnet20", "num_classes": 100}, (3, 32, 32), 269_722 + 65 * 90),
        ({"name": "mobilenet_v2", "num_classes": 7}, (3, 32, 32), None),
        ({"name": "googlenet", "num_classes": 7}, (3, 64, 64), None),
    ],
)
def test_a_network_maps_a_batch_to_logits(
    config: dict[str, Any], shape: tuple[Any, ...], parameters: int | None
) -> None:
    model = build_model(config)
    assert not any(module.training for module in model.modules())
    classes = config.get("num_classes", 10)
    assert model(torch.randn(2, *shape)).shape == (2, classes)
    assert model.train()(torch.randn(2, *shape)).shape == (2, classes)
    if parameters is not None:
        assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_global_seed_decides_the_initial_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build_model({"name": "digits_mlp"}).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_names_hold_the_own_networks_and_torchvisions_classifiers() -> None:
    known = {"digits_resnet", "digits_mlp", "resnet20", "resnet50", "vit_b_16", "deeplabv3_resnet50"}
    assert known <= set(model_names())
    assert "raft_large" not in model_names()


def test_a_segmenter_maps_a_batch_to_logits_of_every_pixel() -> None:
    model = build_model({"name": "deeplabv3_resnet50", "num_classes": 4})
    assert model(torch.randn(1, 3, 33, 40)).shape == (1, 4, 33, 40)
    assert model.train()(torch.randn(2, 3, 33, 40)).shape == (2, 4, 33, 40)


def test_a_users_network_comes_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_network.py").write_text(
        "from torch import nn\n\n\ndef make(features):\n    return nn.Linear(features, 2)\n\n\nNUMBER = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = build_model({"name": "own_network:make", "features": 5})
    assert isinstance(model, nn.Linear) and model.in_features == 5
    with pytest.raises(LrsearchError, match="no callable 'NUMBER'"):
        build_model({"name": "own_network:NUMBER"})
    with pytest.raises(LrsearchError, match=r"model\.features is missing"):
        build_model({"name": "own_network:make"})


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, r"model\.name is None"),
        ({"name": "digits_resnt"}, "did you mean 'digits_resnet'"),
        ({"name": "resnet15O"}, "did you mean 'resnet152'"),
        ({"name": "resnet20", "option": "C"}, "option is 'C', expected A or B"),
        ({"name": "digits_resnet", "widht": 8}, "'widht' is not known; did you mean 'width'"),
        ({"name": "digits_resnet", "width": 0}, "width is 0, expected a whole number"),
        ({"name": "digits_mlp", "depth": "three"}, "depth is 'three'"),
        ({"name": "no.such.module:make"}, "cannot be imported"),
        ({"name": "math:sqrt", "x": 4}, "math:sqrt"),
        ({"name": "builtins:dict", "x": 4}, "returned dict, expected a torch.nn.Module"),
        ({"name": "digits_mlp", "weights": "nowhere.pt"}, "nowhere.pt is not a file"),
    ],
)
def test_a_bad_entry_gets_one_sentence(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LrsearchError, match=sentence) as caught:
        build_model(config)
    assert "\n" not in str(caught.value)
