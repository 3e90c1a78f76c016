"""A recipe: plain data that says how each layer of a dense network is factorized."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lrsearch.errors import LrsearchError


class Factorization(BaseModel):
    """How one layer is replaced. Frozen and hashable, so that candidates can be keys.

    ``kind`` gives ``ranks`` their meaning: ``svd`` and ``messi`` have one rank per subspace, ``tucker2`` and ``tt``
    the pair (r1, r2) of input-side and output-side ranks, ``cp`` its number of components, ``dense`` none. ``tt``, the
    tensor train over (outputs, kernel, inputs), is the network of ``tucker2`` with other weights. ``pruned`` has
    the numbers of input and output channels that are left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["dense", "svd", "messi", "tucker2", "cp", "tt", "pruned"]
    ranks: tuple[int, ...] = ()
    groups: int = 1
    """Number of subspaces (``svd``, ``messi``): the input channels are split into this many slices, consecutive ones
    or, for ``messi``, after they are put into an order that is kept with the weights. Number of branches of the core
    (``tucker2``). Of a ``pruned`` convolution its own groups, which are fewer where whole groups are gone."""
    scheme: Literal[0, 1, 2, 3] = 0
    """Which kernel axes stay together: the folding of a convolution into a matrix (``svd``; ALDS supplement, A.6),
    or both (0) or none (1) of them in the components of ``cp``; 0 for every other kind."""
    reason: str | None = None
    """Why a layer stays dense."""


class Recipe(BaseModel):
    """A dense architecture and one factorization for each of its Conv2d and Linear layers.

    Together with a file of weights it rebuilds the compressed network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    architecture: dict[str, Any] | None = None
    """The model entry of a space file (``name`` and its arguments), or None for a module the caller built."""
    method: str
    layers: dict[str, Factorization]
    """Keyed by the layer's name in ``named_modules()`` of the dense network; batch norms are here too where they are
    pruned."""

    def save(self, path: Path) -> None:
        """Write the recipe as JSON."""
        path.write_text(self.model_dump_json(indent=2, exclude_none=True) + "\n")

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read a recipe.

        Raises:
            LrsearchError: the file is missing or is not a recipe.
        """
        try:
            return cls.model_validate_json(path.read_text())
        except OSError as error:
            raise LrsearchError(f"recipe {path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise LrsearchError(f"recipe {path} is not valid: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise LrsearchError(f"recipe {path} is not valid at {where}: {first['msg']}") from error
