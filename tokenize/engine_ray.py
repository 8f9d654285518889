"""Engine Ray: one unit at a time on each worker actor, tokenizer actors beside them where encoding is the bottleneck.

    driver ── unit ──▶ UnitActor (1 CPU: decode in a child, rows, commit) ── frames ──▶ TokenizerActor (1 CPU, GPU)
           ◀── done ──                                                   ◀── codes ──

The driver hands out units and never touches a frame: one message a unit, and a poll of counters each second. When
an actor or its node dies, its unit goes to another one. Actors that the cluster has no room for yet wait, and are what
an autoscaler sees as demand; on a cluster that grows, more are started unless their number was given.
"""

import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from toto.errors import UserError
from toto.shards.store import open_store
from toto.tokenize.blame import TOKENIZER, WORKER, Alone, Blame, Task
from toto.tokenize.death import one_line, out_of_memory
from toto.tokenize.job import Job
from toto.tokenize.losses import Losses
from toto.tokenize.monitor import Monitor
from toto.tokenize.ray_session import Cluster, connected, refuse_lost
from toto.tokenize.tokenizer_actor import share
from toto.tokenize.tokenizer_pool import TokenizerPool
from toto.tokenize.unfinished import remove_unfinished
from toto.tokenize.unit_actor import unit_actor
from toto.tokenize.units import Unit, Uris
from toto.tokenize.waiting import Waiting
from toto.tokenize.worker import Counters

DEATHS = 10  # of actors on one unit, or in a row while starting, before the run gives up and says so
LOOK_EVERY_S = 5.0  # at how large the cluster is


def execute(job: Job, units: list[Unit], uris: Uris, monitor: Monitor, cluster: Cluster) -> None:
    """Does the units on a cluster; raises UserError when a unit keeps killing its workers, or tokenizer actors."""
    store = open_store(job.out)
    job = replace(job, out=store.uri)  # workers have a current folder of their own
    pids: set[int] = set()
    try:
        with connected(cluster):
            pool = _Pool(job, uris, monitor, cluster, len(units), pids)
            monitor.watch(pool.counters, pool.at_work)
            try:
                pool.run(units)
            except SystemError as error:  # what a signal raised while Ray's C++ was at work comes wrapped in this
                raise error.__cause__ or error from None
    finally:
        remove_unfinished(store, pids)


@dataclass(frozen=True)
class _Doubt:
    """A worker that could not be reached while it did this: it, its node or the network broke."""

    task: Task | None


class _Pool:
    """Worker actors and what they hold. An actor that the cluster has no room for yet holds nothing."""

    def __init__(self, job: Job, uris: Uris, monitor: Monitor, cluster: Cluster, units: int, pids: set[int]) -> None:
        self._job, self._uris, self._monitor, self._cluster, self._units = job, uris, monitor, cluster, units
        self._pids = pids  # of workers on this machine; told here
        self._losses = Losses()
        self._tokenizers = TokenizerPool(job, cluster, monitor, self._losses)
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Task | _Doubt | None]] = {}  # None: the actor gets ready
        self._doubts: dict[Any, _Doubt] = {}
        self._nodes: dict[Any, str] = {}  # of actors that were ready once
        self._todo: deque[Task] = deque()
        self._blame = Blame()
        self._failed_starts = self._lost_nodes = 0
        self._polls: dict[Any, Counters] = {}
        self._finished = Counters()  # of actors that died
        self._hired = 0
        self._looked = 0.0
        self._waiting = Waiting("a worker")

    def run(self, units: list[Unit]) -> None:
        """Until all are committed."""
        self._todo.extend(units)
        self._tokenizers.wait_for_one()  # they have their CPUs before workers take them all
        while self._todo or self.at_work():
            self._look()
            self._waiting.look(bool(self._idle or self._nodes.keys() & self._polls.keys()), self._needs)
            while self._todo and self._idle and self._may_begin(self._todo[0]):
                self._give(self._idle.pop(), self._todo.popleft())
            done, _ = ray.wait(list(self._busy), timeout=1.0) if self._busy else ([], [])
            for ref in done:
                self._take(ref)
            self._poll()

    def at_work(self) -> int:
        """How many workers hold a unit."""
        return sum(task is not None for _, task in list(self._busy.values())) + len(self._doubts)

    def counters(self) -> Counters:
        """What all workers have done so far."""
        total = self._finished
        for counters in list(self._polls.values()):
            total = total.plus(counters)
        return total

    def _may_begin(self, task: Task) -> bool:
        """Whether its turn has come: who may kill tokenizer actors is tried while nobody else uses them."""
        held = [busy.task if isinstance(busy, _Doubt) else busy for _, busy in self._busy.values() if busy is not None]
        held += [doubt.task for doubt in self._doubts.values()]
        quiet = self._blame.needs_quiet
        return not any(quiet(other) for other in held if other) and not (held and quiet(task))

    def _look(self) -> None:
        """Hires what the cluster has CPUs for, now and when it has grown."""
        now = time.monotonic()
        if self._hired and now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        refuse_lost(self._cluster)
        self._tokenizers.look()
        free = int(ray.cluster_resources().get("CPU", 1)) - self._tokenizers.count
        for _ in range(min(self._cluster.workers or max(1, free), self._units) - self._hired):
            self._hire()

    def _needs(self) -> str:
        """What a worker needs, beside what there is."""
        resource, cpus = self._cluster.worker_resource, int(ray.cluster_resources().get("CPU", 0))
        labelled = f" and the resource {resource}" if resource else ""
        return (
            f": it needs a CPU{labelled}; this cluster has {cpus} CPUs, "
            f"{self._tokenizers.count} of them for tokenizer actors"
        )

    def _hire(self) -> None:
        actor = unit_actor(self._job, bool(self._tokenizers.count), self._cluster.worker_resource)
        self._busy[actor.start.remote()] = (actor, None)
        self._hired += 1

    def _give(self, actor: Any, task: Task) -> None:
        ready, workers = self._tokenizers.ready(), self._hired
        common = (ready, share(len(ready), workers))
        if isinstance(task, Alone):
            uri = self._uris.of([task.source])[task.source.key]
            ref = actor.alone.remote(task.source, uri, task.unit.attempt, *common)
        else:
            uris = self._uris.of(task.sources)
            ref = actor.run.remote(task, uris, self._blame.guilty.get(task.id, {}), *common)
        self._busy[ref] = (actor, task)

    def _take(self, ref: Any) -> None:
        actor, held = self._busy.pop(ref)
        task = held.task if isinstance(held, _Doubt) else held
        try:
            answer = ray.get(ref)
        except RayTaskError as error:  # first: what a task raised is of the cause's class too
            if not isinstance(error.cause, RayError) or task is None:
                raise error.cause from error
            self._lost_tokenizer(actor, task, error.cause)
        except ActorUnavailableError:
            self._doubts[actor] = _Doubt(task)  # Ray tells in a while what has become of it
        except RayError as death:
            self._lost(actor, task, death, "node" if self._node_is_gone(actor) else WORKER)
        else:
            if isinstance(held, _Doubt):
                self._lost(actor, task, RuntimeError("it was out of reach for a while"), "connection")
            else:
                self._done(actor, held, answer)

    def _done(self, actor: Any, task: Task | None, answer: Any) -> None:
        word, self._polls[actor] = answer
        self._idle.append(actor)
        if task is None:
            self._nodes[actor] = word["node"]
            self._monitor.remarks(word["remarks"])
            self._pids.update([word["pid"]] if word["host"] == socket.gethostname() else [])
            self._failed_starts = 0
        elif isinstance(task, Alone):
            self._losses.passed(encoded=word)
            self._todo.extend(self._blame.survived(task))
        else:
            self._losses.passed(encoded=word is not None and word.tokens > 0)
            self._monitor.unit_done(task, word)

    def _node_is_gone(self, actor: Any) -> bool:
        node = self._nodes.get(actor)
        return node is not None and all(found["NodeID"] != node for found in ray.nodes() if found["Alive"])

    def _lost(self, actor: Any, task: Task | None, death: Exception, what: str) -> None:
        """Another actor for this one, and for its unit. Only a worker that died on a living node can be a source's
        doing."""
        held = task.unit if isinstance(task, Alone) else task
        cause = one_line(death)
        self._monitor.event("death", what=what, unit=held and held.id, cause=cause)
        if what == WORKER and task is not None:
            self._todo.extend(self._blame.died(task, "oom" if out_of_memory(death) else "crash"))
        elif task is not None:
            self._todo.append(task)
        self._finished = self._finished.plus(self._polls.pop(actor, Counters()).over())
        self._hired -= 1
        ray.kill(actor)  # one that was only out of reach must not keep its CPU
        self._hire()
        if what == WORKER or (held is None and what != "node"):
            self._give_up_or_wait(held, cause)
        elif what != "node":
            time.sleep(self._losses.lost(what, task, cause, self._hired))

    def _lost_tokenizer(self, actor: Any, task: Task, death: Exception) -> None:
        """A tokenizer actor died, and again when Ray had started it anew; the frames may have been this task's."""
        self._idle.append(actor)  # the worker lives
        cause = self._tokenizers.cause_of_a_death(death)
        unit, source = (task.unit, task.source.key) if isinstance(task, Alone) else (task, None)
        self._monitor.event("death", what=TOKENIZER, unit=unit.id, source=source, cause=cause)
        pause_s = self._losses.lost(TOKENIZER, task, cause, self._hired)
        proven = self._losses.is_the_tasks(TOKENIZER, task, last=not self._todo and not self.at_work())
        reason = "oom" if "memory" in cause.lower() else "crash"
        self._todo.extend(self._blame.died(task, reason, TOKENIZER, cause, proven))
        if isinstance(task, Unit):
            time.sleep(pause_s)

    def _give_up_or_wait(self, unit: Unit | None, cause: str) -> None:
        self._failed_starts += unit is None
        deaths = self._blame.deaths(unit) if unit else self._failed_starts
        if deaths >= DEATHS:
            held = f"unit {unit.id} ({', '.join(s.key for s in unit.sources[:3])} …)" if unit else "the run"
            raise UserError(f"{held} lost its worker {DEATHS} times; the last time: {cause}")
        time.sleep(min(0.1 * 2**deaths, 10.0))

    def _poll(self) -> None:
        held = [actor for actor, task in self._busy.values() if isinstance(task, Task)]
        refs = {actor.counters.remote(): actor for actor in held}
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0.5) if refs else ([], [])
        for ref in ready:
            with suppress(RayError):
                self._polls[refs[ref]] = ray.get(ref)
        for actor, doubt in self._doubts.items():
            self._busy[actor.counters.remote()] = (actor, doubt)
        self._doubts.clear()
