import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.models import build_model, load_weights

DATA = Path(os.environ.get("LRSEARCH_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model({"name": "digits_resnet", "width": 2})


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("prefix", ["", "module.", "module.net."])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_load_from_every_usual_layout(prefix: str, wrapped: bool, suffix: str, tmp_path: Path) -> None:
    state = {prefix + key: value for key, value in network(1).state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    model = network(2)
    load_weights(model, path)
    assert same(model, network(1))


def test_a_prefix_that_the_model_has_too_is_kept(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    torch.save(nn.ModuleDict({"module": nn.Linear(2, 2, bias=False)}).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(LrsearchError, match=r"missing module\.bias$"):
        load_weights(model, tmp_path / "weights.pt")


def test_a_mismatch_is_named_key_by_key_and_changes_nothing(tmp_path: Path) -> None:
    state = network(1).state_dict()
    del state["0.weight"]
    state["extra"] = torch.zeros(1)
    state["8.weight"] = torch.zeros(10, 9)
    torch.save(state, tmp_path / "weights.pt")
    model = network(2)
    with pytest.raises(LrsearchError) as caught:
        load_weights(model, tmp_path / "weights.pt")
    text = str(caught.value)
    assert "missing 0.weight; unexpected extra; 8.weight has shape (10, 9), expected (10, 8)" in text
    assert same(model, network(2))


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    state = {key: value for key, value in network(1).state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "weights.pt")
    model = network(2)
    load_weights(model, tmp_path / "weights.pt")
    assert same(model, network(1))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 100, 3000])
def test_a_corrupt_file_is_an_error_of_one_sentence(suffix: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    state = network(1).state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(LrsearchError, match="corrupt") as caught:
        load_weights(network(2), path)
    assert "\n" not in str(caught.value)


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"weight": Trap()}, tmp_path / "trap.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    for name in ("trap.pt", "plain.pt"):
        with pytest.raises(LrsearchError):
            load_weights(network(2), tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": {"weight": 3}}, {3: torch.zeros(1)}])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(LrsearchError, match="state dict"):
        load_weights(network(2), tmp_path / "weights.pt")


def test_published_weights_of_a_segmenter_load_without_its_auxiliary_head(tmp_path: Path) -> None:
    published = torchvision.models.get_model(
        "lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3
    )
    state = published.state_dict() | {"aux_classifier.0.weight": torch.zeros(2)}
    torch.save({"model": state, "epoch": 29}, tmp_path / "weights.pt")
    model = build_model(
        {"name": "lraspp_mobilenet_v3_large", "num_classes": 3, "weights": str(tmp_path / "weights.pt")}
    )
    inputs = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(inputs), published.eval()(inputs)["out"])


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the public checkpoints")
@pytest.mark.parametrize("name", ["resnet20-12fca82f.th", "resnet20_cifar10_jpeg.pt"])
def test_public_cifar_checkpoints_load(name: str) -> None:
    fresh = build_model({"name": "resnet20"})
    model = build_model({"name": "resnet20", "weights": str(DATA / name)})
    assert not torch.equal(model.get_parameter("conv1.weight"), fresh.get_parameter("conv1.weight"))
    logits = model(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 10) and logits.isfinite().all()
