"""From a space file's data entry to a data set cut into splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lrsearch.data.digits import digits
from lrsearch.data.folders import imagefolder, imagenet
from lrsearch.data.segmentation import voc2012
from lrsearch.data.splits import Splits
from lrsearch.data.tensors import cifar10, cifar100, fashion_mnist, mnist
from lrsearch.errors import LrsearchError
from lrsearch.names import call_with, import_callable, unknown_name

_LOADERS: dict[str, Callable[..., Splits]] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "imagenet": imagenet,
    "imagefolder": imagefolder,
    "voc2012": voc2012,
}


def data_names() -> list[str]:
    """The data sets known by name."""
    return list(_LOADERS)


def load_data(config: Mapping[str, Any]) -> Splits:
    """Load the data set that a data entry describes; nothing is ever downloaded.

    Args:
        config: ``name`` and the arguments of that data set, such as ``root``, its folder, or ``seed``, by
            which it is cut into splits. A name with a colon is an import path ``package.module:callable`` of
            something that returns ``Splits``.

    Raises:
        LrsearchError: the name is unknown, an argument is refused, or the folder is missing or damaged.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise LrsearchError(f"data.name is {name!r}, expected the name of a data set, such as digits")
    splits = call_with(_find_loader(name), arguments, key="data", name=name)
    if not isinstance(splits, Splits):
        raise LrsearchError(f"data.name: {name!r} returned {type(splits).__name__}, expected lrsearch.data.Splits")
    return splits


def _find_loader(name: str) -> Callable[..., Any]:
    if name in _LOADERS:
        return _LOADERS[name]
    if ":" in name:
        return import_callable("data.name", name)
    raise unknown_name("data.name", name, _LOADERS)
