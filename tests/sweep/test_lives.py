"""Which lost workers count against a trial: those that died by themselves, and no more of them than it has lives."""

from types import SimpleNamespace

import pytest
from ray.air.execution._internal import RayActorManager
from ray.air.execution.resources.placement_group import PlacementGroupResourceManager
from ray.core.generated.common_pb2 import ActorDeathCause, ActorDiedErrorContext
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.search import Searcher

from lrsearch.sweep import lives as lives_module
from lrsearch.sweep.lives import ActorManager, Lives
from lrsearch.sweep.searcher import RungScheduler, StudySearcher
from tests.sweep.simulator import make_space, open_session, simulate


class Cluster:
    """What Ray says of actors that died, and of its nodes."""

    def __init__(self):
        self.actors, self.nodes = {}, {}

    def died(self, reason, node):
        """The error with which Ray tells of the death of an actor on a node."""
        self.nodes.setdefault(node, True)
        cause = ActorDiedErrorContext(actor_id=len(self.actors).to_bytes(16, "big"), reason=reason)
        error = ActorDiedError(cause=cause)
        death = ActorDeathCause(actor_died_error_context=cause)
        self.actors[error.actor_id] = {"DeathCause": death, "Address": {"NodeID": node}}
        return error


@pytest.fixture
def cluster(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr(lives_module, "actors", cluster.actors.get)
    nodes = cluster.nodes
    monkeypatch.setattr("ray.nodes", lambda: [{"NodeID": node, "Alive": nodes[node]} for node in nodes])
    return cluster


def test_three_deaths_of_its_own_are_too_many(cluster):
    lives = Lives()
    for spent in (False, False, True):
        lives.worker_lost(1, cluster.died(ActorDiedErrorContext.WORKER_DIED, "a"))
        lives.worker_lost(2, cluster.died(ActorDiedErrorContext.NODE_DIED, "b"))
        assert lives.spent(1) is spent
        assert not lives.spent(2)


@pytest.mark.parametrize(
    "error", [OutOfMemoryError("killed by the memory monitor"), ActorDiedError(), None], ids=["memory", "no cause", "?"]
)
def test_deaths_without_a_known_place_count(cluster, error):
    lives = Lives()
    for _ in range(3):
        lives.worker_lost(1, error)
    assert lives.spent(1)


def test_machines_and_networks_cost_nothing_however_often(cluster):
    lives = Lives()
    for number in range(10):
        lives.worker_lost(1, cluster.died(ActorDiedErrorContext.NODE_DIED, f"lost {number}"))
        lives.worker_lost(1, ActorUnavailableError("network", None))
        lives.worker_lost(1, NodeDiedError("gone"))
        lives.worker_lost(1, cluster.died(ActorDiedErrorContext.WORKER_DIED, f"preempted {number}"))
        assert not lives.spent(1)
        cluster.nodes[f"preempted {number}"] = False  # its workers were ended first


def lose_worker(scheduler, spec, error):
    """As Tune tells the scheduler of it."""
    controller = SimpleNamespace(_actor_manager=SimpleNamespace(error=error))
    scheduler.on_trial_error(controller, SimpleNamespace(config={"spec": spec}))


def test_trial_begins_again_until_its_lives_are_spent(tmp_path, cluster):
    lives, session = Lives(), open_session(make_space(trials=1), tmp_path / "runs")
    searcher, scheduler = StudySearcher(session, lambda: 2, lives), RungScheduler(session, lives)
    reasons = [ActorDiedErrorContext.NODE_DIED] * 4 + [ActorDiedErrorContext.WORKER_DIED] * 3
    for number, reason in enumerate(reasons):
        spec = searcher.suggest(str(number))["spec"]
        assert spec.number == 0
        assert searcher.suggest("other") is None, "the search ended while a trial might have to begin again"
        lose_worker(scheduler, spec, cluster.died(reason, "a"))
        searcher.on_trial_complete(str(number), error=True)
        searcher.check()

    assert searcher.suggest("other") == Searcher.FINISHED
    assert session.finished
    assert [(r.state, r.reason) for r in session.records] == [("failed", "its worker process died 3 times")]


def test_worker_that_left_its_result_before_it_was_lost_is_not_replaced(tmp_path, cluster):
    lives, session = Lives(), open_session(make_space(trials=1), tmp_path / "runs")
    searcher, scheduler = StudySearcher(session, lambda: 2, lives), RungScheduler(session, lives)
    spec = searcher.suggest("a")["spec"]
    simulate(spec, session.store.trial(spec.number))
    lose_worker(scheduler, spec, cluster.died(ActorDiedErrorContext.NODE_DIED, "a"))
    searcher.on_trial_complete("a", error=True)

    assert searcher.suggest("b") == Searcher.FINISHED
    assert [record.state for record in session.records] == ["complete"]


def test_worker_killed_for_its_memory_is_a_lost_worker_and_not_the_end_of_the_sweep():
    assert tune_controller.RayActorManager is ActorManager
    told = []
    error = OutOfMemoryError("2 worker(s) were killed due to the node running low on memory")
    with pytest.raises(RuntimeError):
        lose_a_task(RayActorManager, error, told)
    told.clear()

    manager = lose_a_task(ActorManager, error, told)

    of_actor, of_task = told
    assert isinstance(of_actor, RayActorError) and of_task is of_actor and str(of_actor) == str(error)
    assert manager.error is error


def lose_a_task(kind, error, told):
    """What an actor manager tells the two callbacks of a task whose actor is gone."""
    manager = kind(PlacementGroupResourceManager())
    callbacks = {"on_error": lambda _, error: told.append(error)}
    actor = SimpleNamespace(actor_id=1, _on_error=callbacks["on_error"])
    manager._cleanup_actor = lambda tracked_actor: None
    manager._actor_task_failed(SimpleNamespace(_tracked_actor=actor, _on_error=callbacks["on_error"]), error)
    return manager
