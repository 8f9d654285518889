"""Engine Ray: one unit at a time on each worker actor, tokenizer actors beside them where encoding is the bottleneck.

    driver ── unit ──▶ UnitActor (1 CPU: decode in a child, rows, commit) ── frames ──▶ TokenizerActor
           ◀── done ──                                                   ◀── codes ──

The driver hands out units and never touches a frame: one message a unit, and a poll of counters each second. When
an actor or its node dies, its unit goes to another one; that never counts against a source.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from toto.errors import UserError
from toto.tokenize.encoder import LocalEncoder
from toto.tokenize.engine_local import make_encoder, open_worker
from toto.tokenize.job import Job
from toto.tokenize.monitor import Monitor
from toto.tokenize.ray_session import Cluster, connected
from toto.tokenize.unit import run_unit
from toto.tokenize.units import Unit
from toto.tokenize.worker import Counters

DEATHS = 10  # of actors on one unit, or while starting, before the run gives up and says so
BYTES_IN_FLIGHT = 32 * 1024 * 1024  # frames on their way to one tokenizer actor


def execute(job: Job, units: list[Unit], uris: Mapping[str, str], monitor: Monitor, cluster: Cluster) -> None:
    """Does the units on a cluster; raises UserError when a unit keeps killing its workers."""
    with connected(cluster) as cpus:
        workers = min(cluster.workers or cpus, len(units))
        tokenizers = [TokenizerActor.remote(job) for _ in range(cluster.tokenizer_actors)]  # type: ignore[attr-defined]
        _get([actor.canary.remote() for actor in tokenizers])  # they have their CPUs before workers take them all
        _Pool(job, uris, monitor, tokenizers, workers).run(units)


class _Pool:
    """Worker actors and the units they hold. An actor that the cluster has no room for yet holds none."""

    def __init__(
        self, job: Job, uris: Mapping[str, str], monitor: Monitor, tokenizers: list[Any], workers: int
    ) -> None:
        self._job, self._uris, self._monitor, self._tokenizers = job, uris, monitor, tokenizers
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Unit | None]] = {}  # None: the actor gets ready
        self._todo: deque[Unit] = deque()
        self._deaths: Counter[str] = Counter()
        self._polls: dict[Any, Counters] = {}
        self._finished = Counters()  # of actors that died
        for _ in range(workers):
            self._hire()
        monitor.watch(self._counters)

    def run(self, units: list[Unit]) -> None:
        self._todo.extend(units)
        while self._todo or self._at_work():
            while self._todo and self._idle:
                self._give(self._idle.pop(), self._todo.popleft())
            done, _ = ray.wait(list(self._busy), timeout=1.0)
            for ref in done:
                self._take(ref)
            self._poll()

    def _at_work(self) -> list[Any]:
        return [actor for actor, unit in self._busy.values() if unit is not None]

    def _hire(self) -> None:
        actor = UnitActor.options(max_concurrency=2).remote(self._job, self._tokenizers)  # type: ignore[attr-defined]
        self._busy[actor.start.remote()] = (actor, None)

    def _give(self, actor: Any, unit: Unit) -> None:
        uris = {source.key: self._uris[source.key] for source in unit.sources}
        self._busy[actor.run.remote(unit, uris)] = (actor, unit)

    def _take(self, ref: Any) -> None:
        actor, unit = self._busy.pop(ref)
        try:
            self._polls[actor] = ray.get(ref)
        except RayTaskError as error:  # first: what a task raised is of the cause's class too
            if not isinstance(error.cause, RayError):
                raise error.cause from error
            self._lost(actor, unit, error.cause)  # its tokenizer actor died
        except RayError as death:
            self._lost(actor, unit, death)
        else:
            self._idle.append(actor)
            if unit is not None:
                self._monitor.unit_done(unit)

    def _lost(self, actor: Any, unit: Unit | None, death: Exception) -> None:
        """Another actor for this one, and for its unit."""
        self._count_death(unit, death)
        if unit is not None:
            self._todo.append(unit)
        self._finished = self._finished.plus(self._polls.pop(actor, Counters()))
        ray.kill(actor)  # one that was only out of reach must not keep its CPU
        self._hire()

    def _count_death(self, unit: Unit | None, death: Exception) -> None:
        key = unit.id if unit else ""
        self._deaths[key] += 1
        if self._deaths[key] >= DEATHS:
            held = f"unit {unit.id} ({', '.join(s.key for s in unit.sources[:3])} …)" if unit else "the run"
            raise UserError(f"{held} lost its worker {DEATHS} times; the last time: {' '.join(str(death).split())}")
        time.sleep(min(0.1 * 2 ** self._deaths[key], 10.0))

    def _poll(self) -> None:
        refs = {actor.counters.remote(): actor for actor in self._at_work()}
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0.5) if refs else ([], [])
        for ref in ready:
            with suppress(RayError):
                self._polls[refs[ref]] = ray.get(ref)

    def _counters(self) -> Counters:
        total = self._finished
        for counters in list(self._polls.values()):
            total = total.plus(counters)
        return total


@ray.remote(num_cpus=1, max_restarts=0)
class UnitActor:
    """A worker: its decoder child, its store, and an encoder; `counters` answers while `run` is at work.

    Nothing that can fail happens in the constructor: Ray would tell of it as of a death.
    """

    def __init__(self, job: Job, tokenizers: list[Any]) -> None:
        self._job, self._tokenizers = job, tokenizers

    def start(self) -> Counters:
        """Loads the tokenizer, or finds the actors that did; raises UserError when its canary is refused."""
        encoder = RemoteEncoder(self._tokenizers) if self._tokenizers else None
        self._context = open_worker(self._job, encoder)
        self._worker = self._context.__enter__()
        return self.counters()

    def run(self, unit: Unit, uris: Mapping[str, str]) -> Counters:
        """See run_unit; returns what this actor has done so far."""
        run_unit(self._worker, unit, uris)
        return self.counters()

    def counters(self) -> Counters:
        """What this actor has done so far."""
        return self._worker.counters


@ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=3)
class TokenizerActor:
    """Encodes blocks for any worker; one process holds the weights once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._made: LocalEncoder | None = None

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [n, H, W, 3] -> int32 codes [n, h, w]."""
        return self._encoder().submit(frames)()

    def canary(self) -> dict[str, Any]:
        """See canary.py."""
        return self._encoder().canary

    def _encoder(self) -> LocalEncoder:
        self._made = self._made or make_encoder(self._job)
        return self._made

    def node(self) -> str:
        """The node this actor runs on."""
        return str(ray.get_runtime_context().get_node_id())


class RemoteEncoder:
    """Sends blocks to tokenizer actors, its own node's first; frames in flight are bounded in bytes."""

    def __init__(self, actors: list[Any]) -> None:
        here = ray.get_runtime_context().get_node_id()
        near = [
            actor for actor, node in zip(actors, _get([a.node.remote() for a in actors]), strict=True) if node == here
        ]
        self._actors = near or actors
        self.canary: dict[str, Any] = _get(self._actors[0].canary.remote())
        self._in_flight: deque[tuple[Any, int]] = deque()
        self._bytes = self._sent = 0

    def submit(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """The codes come when the returned function is called; it waits for them."""
        while self._in_flight and self._bytes + frames.nbytes > BYTES_IN_FLIGHT * len(self._actors):
            oldest, size = self._in_flight.popleft()
            ray.wait([oldest])
            self._bytes -= size
        actor = self._actors[self._sent % len(self._actors)]
        ref = actor.encode.remote(frames)
        self._in_flight.append((ref, frames.nbytes))
        self._bytes += frames.nbytes
        self._sent += 1
        return lambda: _get(ref)


def _get(refs: Any) -> Any:
    """ray.get, with the error that a task raised in place of Ray's wrapping of it."""
    try:
        return ray.get(refs)
    except RayTaskError as error:
        raise error.cause from error
