"""Tensors that trials of one network share: computed by the first that needs them, memory-mapped by the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from safetensors.torch import load_file, save_file
from torch import Tensor

from lrsearch.files import only_process, replacing
from lrsearch.object_storage import fetch
from lrsearch.version import __version__

LIMIT = 2**32
"""Bytes of a folder from which on it takes nothing more in; what is not kept is computed again."""


class SharedTensors:
    """What can be known of a network once and for all, kept beside it.

    A file is complete or absent and never changes. Where two processes need the same at once, one of them waits.

    Args:
        folder: one for each network; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._mapped: dict[str, dict[str, Tensor]] = {}

    def get(self, name: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Named tensors on the CPU, the same bits for everybody; not to be changed.

        Args:
            name: what they are, whoever asks; another release may compute something else and has its own.
            compute: asked where they are not kept.

        Raises:
            StorageFullError, StorageError: they cannot be kept.
        """
        if self._folder is None:
            return _on_cpu(compute())
        if name not in self._mapped:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{quote(name, safe='')}-{__version__}.safetensors"
            with only_process(path.with_suffix(".lock")):
                fetch(path)
                if not path.exists():
                    tensors = _on_cpu(compute())
                    if self._size() + sum(each.nbytes for each in tensors.values()) > LIMIT:
                        return tensors
                    with replacing(path) as temporary:
                        save_file(tensors, temporary)
            self._mapped[name] = load_file(path)
        return self._mapped[name]

    def _size(self) -> int:
        assert self._folder is not None  # noqa: S101 - asked of folders only
        return sum(file.stat().st_size for file in self._folder.glob("*.safetensors"))


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
