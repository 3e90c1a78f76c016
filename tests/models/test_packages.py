"""Networks of timm and Hugging Face by name, from files alone."""

import importlib.util
from pathlib import Path

import pytest
import torch

from lrsearch.errors import LrsearchError
from lrsearch.factorize.layers import find_layers
from lrsearch.models import build_model


def test_a_network_of_timm_comes_by_its_name() -> None:
    timm = pytest.importorskip("timm")
    model = build_model({"name": "timm:vit_tiny_patch16_224", "img_size": 32, "num_classes": 7})
    assert isinstance(model, timm.models.VisionTransformer) and not model.training
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    layers, _ = find_layers(model, torch.zeros(1, 3, 32, 32))
    assert {name.rpartition(".")[2] for name in layers if ".attn." in name} == {"qkv", "proj"}
    with pytest.raises(LrsearchError, match="timm:no_such_network cannot be made"):
        build_model({"name": "timm:no_such_network"})


def test_a_classifier_of_hugging_face_comes_from_its_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=32, patch_size=16, hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, num_labels=6,
    )  # fmt: skip
    trained = transformers.ViTForImageClassification(config).eval()
    trained.save_pretrained(tmp_path)
    model = build_model({"name": f"hf:{tmp_path}", "weights": str(tmp_path / "model.safetensors")})
    inputs = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(inputs), trained(inputs).logits)
    layers, _ = find_layers(model, inputs[:1])
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert linear <= layers.keys() and len(linear) == 2 * 6 + 1
    untrained = build_model({"name": f"hf:{tmp_path}"})
    untrained.load_state_dict(model.state_dict())
    assert torch.equal(untrained(inputs), trained(inputs).logits)
    with pytest.raises(LrsearchError, match="nowhere"):
        build_model({"name": "hf:nowhere"})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(LrsearchError, match=r"pip install timm$"):
        build_model({"name": "timm:vit_tiny_patch16_224"})
