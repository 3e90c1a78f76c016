"""From a space file's model entry to a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.models.attention import separate_projections
from lrsearch.models.cifar_resnet import CIFAR_RESNETS
from lrsearch.models.cifar_vgg import vgg16_cifar
from lrsearch.models.densenet import densenet22
from lrsearch.models.digits import digits_mlp, digits_resnet
from lrsearch.models.lenet import lenet5
from lrsearch.models.mnist_mlp import mnist_mlp
from lrsearch.models.outputs import OneOutput
from lrsearch.models.packages import package_builder
from lrsearch.models.weights import load_weights
from lrsearch.models.wide_resnet import wrn16_8, wrn28_10
from lrsearch.names import call_with, import_callable, unknown_name

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "digits_resnet": digits_resnet,
    "digits_mlp": digits_mlp,
    "lenet5": lenet5,
    "mnist_mlp": mnist_mlp,
    **CIFAR_RESNETS,
    "vgg16_cifar": vgg16_cifar,
    "densenet22": densenet22,
    "wrn16_8": wrn16_8,
    "wrn28_10": wrn28_10,
}

_INPUT_SHAPES = {
    "digits_resnet": (1, 8, 8),
    "digits_mlp": (1, 8, 8),
    "lenet5": (1, 28, 28),
    "mnist_mlp": (1, 28, 28),
    **dict.fromkeys((*CIFAR_RESNETS, "vgg16_cifar", "densenet22", "wrn16_8", "wrn28_10"), (3, 32, 32)),
    "inception_v3": (3, 299, 299),
}

# Their auxiliary heads would make the output of training mode a tuple that no loss here understands.
_WITHOUT_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def model_names() -> Iterator[str]:
    """The networks known by name: those written here first, then torchvision's classifiers and segmenters.

    Torchvision, which takes seconds to import, is asked only by who looks that far.
    """
    yield from _BUILDERS
    yield from _torchvision_names("classification")
    yield from _torchvision_names("segmentation")


def _torchvision_names(task: Literal["classification", "segmentation"]) -> list[str]:
    from torchvision import models

    module = models if task == "classification" else models.segmentation
    return list(models.list_models(module=module))


def input_shape(name: str) -> tuple[int, ...] | None:
    """The shape of one input (channels, height, width) of a network known by name, as its authors train it."""
    if name in _INPUT_SHAPES:
        return _INPUT_SHAPES[name]
    if name in _torchvision_names("segmentation"):
        return (3, 513, 513)
    return (3, 224, 224) if name in model_names() else None


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that a model entry describes, in eval mode, on the CPU.

    Initial weights come from torch's global random state: seed it first for the same weights every time.

    Args:
        config: ``name``, the arguments of that network, and optionally ``weights``, the path of a file of
            weights (see ``load_weights``). Networks of packages are named ``timm:NAME`` and ``hf:FOLDER`` (a
            local one); any other name with a colon is an import path ``package.module:callable``.

    Raises:
        LrsearchError: the name is unknown, an argument is refused, or the weights do not fit.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise LrsearchError(f"model.name is {name!r}, expected the name of a network, such as digits_resnet")
    weights = None if name.startswith("hf:") else arguments.pop("weights", None)  # a package that reads its own
    builder = _find_builder(name)
    model = call_with(builder, arguments, key="model", name=name)
    if not isinstance(model, nn.Module):
        raise LrsearchError(f"model.name: {name!r} returned {type(model).__name__}, expected a torch.nn.Module")
    if weights is not None:
        load_weights(model, Path(weights).expanduser())
    return model.eval()


def _find_builder(name: str) -> Callable[..., Any]:
    if name in _BUILDERS:
        return _BUILDERS[name]
    if builder := package_builder(name):
        return builder
    if ":" in name:
        return import_callable("model.name", name)
    if name in _torchvision_names("segmentation"):
        return partial(_torchvision_segmenter, name)
    if name in _torchvision_names("classification"):
        return partial(_torchvision_classifier, name)
    raise unknown_name("model.name", name, model_names())


def _torchvision_classifier(architecture: str, **arguments: Any) -> nn.Module:
    from torchvision.models import get_model

    if architecture in _WITHOUT_AUXILIARY_HEADS:
        arguments = {"aux_logits": False, "init_weights": True} | arguments
    return separate_projections(get_model(architecture, weights=None, **arguments))


def _torchvision_segmenter(architecture: str, **arguments: Any) -> nn.Module:
    from torchvision.models import get_model

    return OneOutput(get_model(architecture, weights=None, weights_backbone=None, **arguments), "out")
