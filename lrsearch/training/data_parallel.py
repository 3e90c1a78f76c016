"""One training by several processes, each on its share of every batch (data parallelism).

Gradients are averaged after each step's backward passes, not by ``DistributedDataParallel`` during one: methods freeze
parameters in some epochs, and a process that is short of memory takes its share in several passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from lrsearch.data.seeds import derived_seed

_PATIENCE = timedelta(minutes=10)
"""With processes that do not answer."""


class Place(NamedTuple):
    """A process's number among those that train together, and how many they are; (0, 1) alone."""

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this process evaluates, writes checkpoints and speaks for all."""
        return self.rank == 0

    def wait(self) -> None:
        """Let the others catch up."""
        if self.size > 1:
            distributed.barrier()

    def seed(self, seed: int) -> int:
        """A seed of its own for each process, the leader's being the one that it would have alone."""
        return seed if self.leads else derived_seed(seed, self.rank)


def place() -> Place:
    """Where this process stands."""
    if not distributed.is_initialized():
        return Place(0, 1)
    return Place(distributed.get_rank(), distributed.get_world_size())


@contextmanager
def together(where: Place, device: torch.device, rendezvous: Path) -> Iterator[None]:
    """Train with the other processes that meet at the file ``rendezvous``, which is new."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        backend, init_method=rendezvous.absolute().as_uri(), rank=where.rank, world_size=where.size, timeout=_PATIENCE
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def average_gradients(
    parameters: Iterable[Tensor], loss: float, images: int, device: torch.device
) -> tuple[float, int]:
    """Give every process the gradients of the mean loss over the images of all; returns that mean and their number.

    Args:
        parameters: the same in every process; their gradients are of this process's mean loss.
        loss: of this process.
        images: of this process.
        device: of the parameters.
    """
    totals = torch.tensor([loss * images, float(images)], dtype=torch.float64, device=device)
    distributed.all_reduce(totals)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients]) * (images / totals[1].item())
    distributed.all_reduce(flat)
    for gradient, mean in zip(gradients, torch.split(flat, [each.numel() for each in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
    return float(totals[0] / totals[1]), int(totals[1])
