"""What a space file may say about how it is searched, where its trials run and how they are measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

KIND = "accelerator_type:"
"""Ray's resource for a kind of accelerator is named so, with the kind."""
Sampler = Literal["tpe", "nsga2", "nsga3", "gp", "random", "grid"]


class RungsConfig(BaseModel):
    """Epochs of the retraining at which trials are compared: ``first``, ``first * factor``, ``first * factor**2``...

    Of the trials that reached a rung, one goes on if it is not dominated, if fewer than one in ``factor`` have a better
    non-domination rank, or if no trial that trained to its end dominates what it may become; but not if its accuracy is
    not expected to come up to its bound. What trials may become is learnt from those that trained to their end. A rung
    within a factor of the last epoch would save too little and is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    first: int = Field(default=2, ge=1)
    """Epochs before the first comparison."""
    factor: int = Field(default=3, ge=2)
    """How many times more epochs lie before each further one, and how few trials pass it."""

    def epochs(self, total: int) -> list[int]:
        """The rungs of a training of ``total`` epochs, ascending."""
        rungs = []
        rung = self.first
        while rung * self.factor <= total:
            rungs.append(rung)
            rung *= self.factor
        return rungs


class SearchConfig(BaseModel):
    """How the space is explored."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    trials: Annotated[int, Field(ge=1)] = 24
    """How many trials the sweep holds in the end, failed ones included."""
    sampler: Sampler = "gp"
    """``gp`` (Gaussian processes, the largest expected gain of hypervolume), ``tpe``, ``nsga2``, ``nsga3``, ``random``,
    or ``grid`` (over ``choice``s)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds the sampler and, with the trial's number, every trial."""
    rungs: RungsConfig | None = RungsConfig()
    """Where trials that others dominate stop early; null lets every trial end."""
    enqueue: list[dict[str, Any]] = []
    """Trials to begin with: ``method`` and any of its open hyperparameters; the sampler chooses the others."""


class MethodResources(BaseModel):
    """What a trial of one method occupies, where it differs from the others."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    cpus: Annotated[float, Field(gt=0)] | None = None
    gpus: Annotated[float, Field(ge=0)] | None = None
    memory: Annotated[float, Field(ge=0)] | None = None


class ResourcesConfig(BaseModel):
    """What one trial occupies while it runs; Ray starts as many side by side as fit."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    cpus: Annotated[float, Field(gt=0)] = 1
    """CPU cores; also the number of threads that PyTorch uses (rounded down, at least one). Throughput is always
    measured with the number given here, whatever a method's own."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs; a fraction lets several trials share one, several share every batch of a trial's retraining."""
    memory: Annotated[float, Field(ge=0)] = 0
    """GiB of main memory that Ray reserves; 0 reserves none."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Most trials side by side, however many would fit."""
    methods: dict[str, MethodResources] = {}
    """Method -> what its trials need instead, such as ``dlrt: {gpus: 1}``."""
    accelerator: str | None = None
    """Only machines with this kind of accelerator, as Ray names it, such as ``A100``: speeds of two kinds do not
    compare. Others join it with ``ray start --resources '{"accelerator_type:NAME": 1}'``."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Trials side by side on a cluster that grows on demand; by default as many as fit on the machines there are."""

    def of(self, method: str) -> ResourcesConfig:
        """What a trial of a method occupies."""
        own = self.methods.get(method, MethodResources()).model_dump(exclude_none=True)
        return self.model_copy(update=own)

    @property
    def threads(self) -> int:
        """Threads for PyTorch."""
        return max(1, int(self.cpus))

    @property
    def processes(self) -> int:
        """Processes that share the retraining of a trial."""
        return max(1, int(self.gpus))

    @property
    def kind(self) -> dict[str, float]:
        """Hardly any of the resource by which Ray knows machines with the accelerator; nothing where all will do."""
        return {KIND + self.accelerator: 0.001} if self.accelerator else {}

    @property
    def request(self) -> dict[str, float]:
        """The same in Ray's words."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory * 2**30, **self.kind}
        return {name: amount for name, amount in amounts.items() if amount}
