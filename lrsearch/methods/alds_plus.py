"""ALDS+: ALDS with the folding of each convolution chosen too.

Source: ALDS supplement A.6: every layer has any of the four foldings of a kernel into a matrix, together with
its number of subspaces and its rank. In all four, slices are of consecutive input channels. The paper's outlook,
that other decompositions compete in the same allocation, is open too: Tucker-2, tensor train, CP.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator
from torch import Tensor, nn

from lrsearch.factorize import LayerShape, find_layers
from lrsearch.methods import base
from lrsearch.methods.base import Compressed, Progress, Task
from lrsearch.methods.one_shot.any_subspaces import AnySubspaces, AnySubspacesHyperparameters
from lrsearch.methods.one_shot.apply import diverging, finite_weight
from lrsearch.methods.one_shot.candidates import Family
from lrsearch.methods.one_shot.cp import cp_errors, cp_family
from lrsearch.methods.one_shot.progress import counted
from lrsearch.methods.one_shot.tucker2 import TuckerError, has_tucker2, tucker_errors, tucker_family

Kind = Literal["svd", "tucker2", "tt", "cp"]


class AldsPlusHyperparameters(AnySubspacesHyperparameters):
    """What ``alds_plus`` can be told."""

    schemes: Annotated[tuple[Literal[0, 1, 2, 3], ...], Field(min_length=1)] = (0, 1, 2, 3)
    """The foldings to choose from (``svd``)."""
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("svd",)
    """The decompositions to choose from, any of ``svd``, ``tucker2``, ``tt`` and ``cp``; CP is fitted in each trial."""

    @model_validator(mode="after")
    def _known_error(self) -> AldsPlusHyperparameters:
        others = ", ".join(kind for kind in self.kinds if kind != "svd")
        if others and self.measured not in get_args(TuckerError):
            raise ValueError(f"expected error proxy or energy where kinds holds {others}, got {self.measured}")
        return self


class AldsPlus(AnySubspaces):
    """The method ``alds_plus``."""

    name = "alds_plus"
    Hyperparameters: ClassVar[type[base.Hyperparameters]] = AldsPlusHyperparameters
    schemes = (0, 1, 2, 3)

    def statistics(self, model: nn.Module, task: Task) -> dict[str, Tensor]:
        """Singular values as of every relative, and ``<layer>/tucker2/<error>``, the errors of all pairs of ranks.

        Raises:
            LrsearchError: a layer's weight is not finite.
        """
        values = super().statistics(model, task)
        for name, shape in find_layers(model)[0].items():
            if has_tucker2(shape):
                weight = finite_weight(model, name)
                for error in get_args(TuckerError):
                    values[f"{name}/tucker2/{error}"] = tucker_errors(weight, shape.groups, error)
        return values

    def families(
        self, name: str, shape: LayerShape, hyperparameters: Any, statistics: Mapping[str, Tensor]
    ) -> Sequence[Family]:
        """Of the kinds asked for."""
        found = (
            list(super().families(name, shape, hyperparameters, statistics)) if "svd" in hyperparameters.kinds else []
        )
        if has_tucker2(shape):
            error = hyperparameters.measured
            for kind in ("tucker2", "tt"):
                if kind in hyperparameters.kinds:
                    found.append(tucker_family(shape, statistics[f"{name}/tucker2/{error}"], error, kind))
            if "cp" in hyperparameters.kinds:
                found.append(cp_family(shape, statistics[f"{name}/cp"]))
        return found

    def compress(
        self, model: nn.Module, task: Task, hyperparameters: Any, statistics: Mapping[str, Tensor]
    ) -> Generator[Progress, None, Compressed]:
        """Fit CP decompositions where they are asked for, then choose as every relative does.

        Raises:
            BudgetUnreachableError: the budget is smaller than what the cheapest candidates would keep.
            TrialFailedError: a CP decomposition diverges.
        """
        shapes, _ = find_layers(model, task.example_input)
        fitted = [n for n, shape in shapes.items() if "cp" in hyperparameters.kinds and has_tucker2(shape)]
        total = len(fitted) + max(1, len(shapes))
        known = dict(statistics)
        for done, name in enumerate(fitted, start=1):
            weight = finite_weight(model, name)
            with diverging(f"layer {name!r}, candidates of CP"):
                known[f"{name}/cp"] = cp_errors(weight, shapes[name], hyperparameters.measured)
            yield Progress(done, total)
        rest = super().compress(model, task, hyperparameters, known)
        return (yield from (counted(rest, len(fitted), total, total) if fitted else rest))

    def folded(self, hyperparameters: Any) -> Sequence[int]:
        """The schemes asked for."""
        schemes: Sequence[int] = hyperparameters.schemes
        return schemes


METHOD: base.Method = AldsPlus()
