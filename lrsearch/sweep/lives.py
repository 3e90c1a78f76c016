"""Lost workers: one that died by itself costs its trial a life, one that was lost with its machine or network none."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import ray
from ray._private.state import actors
from ray.air.execution._internal import RayActorManager
from ray.core.generated.common_pb2 import ActorDiedErrorContext  # type: ignore[attr-defined]
from ray.exceptions import ActorUnavailableError, NodeDiedError, RayActorError, RayError, RayTaskError
from ray.tune.execution import tune_controller

from lrsearch.sweep.session import WORKER_LIVES


class Lives:
    """Counts the workers of each trial that died by themselves.

    Those are not counted whose machine is gone too: it may take its workers down before it is missed itself.
    """

    def __init__(self) -> None:
        self._deaths: dict[int, list[str | None]] = defaultdict(list)

    def worker_lost(self, number: int, error: Exception | None) -> None:
        """Note that a trial lost its worker, and with which of Ray's errors, as far as that is known."""
        if isinstance(error, (ActorUnavailableError, NodeDiedError)):
            return
        actor = actors(error.actor_id) if isinstance(error, RayActorError) and error.actor_id else None
        if actor and actor["DeathCause"].actor_died_error_context.reason == ActorDiedErrorContext.NODE_DIED:
            return
        self._deaths[number].append(actor["Address"]["NodeID"] if actor else None)

    def spent(self, number: int) -> bool:
        """Whether a trial has none left."""
        there = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        return sum(node is None or node in there for node in self._deaths[number]) >= WORKER_LIVES


class ActorManager(RayActorManager):
    """Tune's own ends the whole sweep at any error that is neither an actor's nor a task's.

    Such is the one with which Ray tells of a worker that its memory monitor killed.

    Attributes:
        error: the last with which a worker was lost. Tune tells the scheduler of it only that there was one.
    """

    error: Exception | None = None

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        self.error = exception
        super()._actor_start_failed(tracked_actor, _as_loss(exception))

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        self.error = exception
        super()._actor_task_failed(tracked_actor_task, _as_loss(exception))


def _as_loss(error: Exception) -> Exception:
    if isinstance(error, RayError) and not isinstance(error, (RayActorError, RayTaskError)):
        return RayActorError(error_msg=str(error))
    return error


tune_controller.RayActorManager = ActorManager  # type: ignore[attr-defined]
