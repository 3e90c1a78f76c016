"""From a space file's model entry to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.models.cifar_resnet import CIFAR_RESNETS
from lrsearch.models.cifar_vgg import vgg16_cifar
from lrsearch.models.densenet import densenet22
from lrsearch.models.digits import digits_mlp, digits_resnet
from lrsearch.models.lenet import lenet5
from lrsearch.models.mnist_mlp import mnist_mlp
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


def model_names() -> list[str]:
    """The networks known by name: those written here first, then torchvision's classifiers."""
    import torchvision

    return [*_BUILDERS, *torchvision.models.list_models(module=torchvision.models)]


def input_shape(name: str) -> tuple[int, ...] | None:
    """The shape of one input (channels, height, width) of a network known by name, as its authors train it."""
    if name in _INPUT_SHAPES:
        return _INPUT_SHAPES[name]
    return (3, 224, 224) if name in model_names() else None


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that a model entry describes, in eval mode, on the CPU.

    Initial weights come from torch's global random state: seed it first for the same weights every time.

    Args:
        config: ``name``, the arguments of that network, and optionally ``weights``, the path of a file of
            weights (see ``load_weights``). A name with a colon is an import path ``package.module:callable``.

    Raises:
        LrsearchError: the name is unknown, an argument is refused, or the weights do not fit.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    weights = arguments.pop("weights", None)
    if not isinstance(name, str):
        raise LrsearchError(f"model.name is {name!r}, expected the name of a network, such as digits_resnet")
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
    if ":" in name:
        return import_callable("model.name", name)
    import torchvision

    if name not in torchvision.models.list_models(module=torchvision.models):
        raise unknown_name("model.name", name, model_names())
    if name in _WITHOUT_AUXILIARY_HEADS:
        return partial(torchvision.models.get_model, name, weights=None, aux_logits=False, init_weights=True)
    return partial(torchvision.models.get_model, name, weights=None)
