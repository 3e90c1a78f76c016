"""Networks of packages that may be installed beside lrsearch; none of them is asked to download anything."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.models.outputs import OneOutput


def timm_model(architecture: str, **arguments: Any) -> nn.Module:
    """The network that timm knows by this name, untrained."""
    model: nn.Module = _imported("timm").create_model(architecture, pretrained=False, **arguments)
    return model


def hugging_face_classifier(folder: str, weights: str | None = None, **arguments: Any) -> nn.Module:
    """The image classifier that a local folder's ``config.json`` describes, mapping images to logits.

    Args:
        folder: as ``save_pretrained`` writes it.
        weights: the ``model.safetensors`` in such a folder; its keys are those of the package, which alone can map
            them to its modules. Without it the network is untrained.
        **arguments: override entries of the configuration, such as ``num_labels``.

    Raises:
        LrsearchError: the folder describes no network.
        ValueError: the weights lack some of the network's.
    """
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise LrsearchError(f"model.name: folder {path} holds no config.json; nothing is downloaded")
    transformers = _imported("transformers")
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, **arguments)
    kind = transformers.AutoModelForImageClassification
    if weights is None:
        return OneOutput(kind.from_config(config), "logits")
    network, found = kind.from_pretrained(
        Path(weights).expanduser().parent,
        config=config,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"missing {', '.join(missing)}")
    return OneOutput(network, "logits")


_BUILDERS: dict[str, Callable[..., nn.Module]] = {"timm": timm_model, "hf": hugging_face_classifier}


def package_builder(name: str) -> Callable[..., nn.Module] | None:
    """The builder of ``timm:NAME`` or ``hf:FOLDER``; None where ``name`` is neither."""
    package, _, rest = name.partition(":")
    return partial(_BUILDERS[package], rest) if package in _BUILDERS and rest else None


def _imported(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise LrsearchError(f"model.name needs a package that is not installed: pip install {package}") from error
