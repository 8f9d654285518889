"""Engine Ray: one unit at a time on each worker actor, tokenizer actors beside them where encoding is the bottleneck.

    driver ── unit ──▶ UnitActor (1 CPU: decode in a child, rows, commit) ── frames ──▶ TokenizerActor
           ◀── done ──                                                   ◀── codes ──

The driver hands out units and never touches a frame: one message a unit, and a poll of counters each second. When
an actor or its node dies, its unit goes to another one; that never counts against a source.
"""

import logging
import os
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError

from toto.errors import UserError
from toto.tokenize.encoder import LocalEncoder
from toto.tokenize.engine_local import make_encoder, open_worker
from toto.tokenize.job import Job
from toto.tokenize.monitor import Monitor
from toto.tokenize.unit import run_unit
from toto.tokenize.units import Unit
from toto.tokenize.worker import Counters

DEATHS_OF_A_UNIT = 10  # actors that may die on one unit before the run gives up and says so
BYTES_IN_FLIGHT = 32 * 1024 * 1024  # frames on their way to one tokenizer actor
OBJECT_STORE_BYTES = 512 * 1024 * 1024  # of a Ray that we start; blocks are small and short-lived


@dataclass(frozen=True)
class Cluster:
    """Where to run: `address` None starts a Ray of our own, "auto" or an address joins one."""

    address: str | None
    workers: int | None  # None: one for each CPU
    tokenizer_actors: int = 0  # 0: each worker encodes by itself, the fastest layout on CPUs


def execute(job: Job, units: list[Unit], uris: Mapping[str, str], monitor: Monitor, cluster: Cluster) -> None:
    """Does the units on a cluster; raises UserError when a unit keeps killing its workers."""
    with _connected(cluster) as cpus:
        workers = max(1, min(cluster.workers or cpus, len(units)))
        tokenizers = [TokenizerActor.remote(job) for _ in range(cluster.tokenizer_actors)]  # type: ignore[attr-defined]
        _Pool(job, uris, monitor, tokenizers, workers).run(units)


class _Pool:
    """Worker actors and the units they hold."""

    def __init__(
        self, job: Job, uris: Mapping[str, str], monitor: Monitor, tokenizers: list[Any], workers: int
    ) -> None:
        self._job, self._uris, self._monitor, self._tokenizers = job, uris, monitor, tokenizers
        self._idle = [self._actor() for _ in range(workers)]
        self._busy: dict[Any, tuple[Any, Unit]] = {}
        self._deaths: Counter[str] = Counter()
        self._polls: dict[Any, Counters] = {}
        self._finished = Counters()  # of actors that died
        monitor.watch(self._counters)

    def run(self, units: list[Unit]) -> None:
        todo = deque(units)
        while todo or self._busy:
            while todo and self._idle:
                self._give(self._idle.pop(), todo.popleft())
            done, _ = ray.wait(list(self._busy), timeout=1.0)
            for ref in done:
                self._take(ref, todo)
            self._poll()

    def _actor(self) -> Any:
        return UnitActor.options(max_concurrency=2).remote(self._job, self._tokenizers)  # type: ignore[attr-defined]

    def _give(self, actor: Any, unit: Unit) -> None:
        uris = {source.key: self._uris[source.key] for source in unit.sources}
        self._busy[actor.run.remote(unit, uris)] = (actor, unit)

    def _take(self, ref: Any, todo: deque[Unit]) -> None:
        actor, unit = self._busy.pop(ref)
        try:
            self._polls[actor] = ray.get(ref)
        except RayActorError as death:
            self._replace(actor, unit, death)
            todo.append(unit)
            return
        except RayTaskError as error:
            if isinstance(error.cause, RayActorError):  # its tokenizer actor died, the worker did not
                self._count_death(unit, error.cause)
                self._idle.append(actor)
                todo.append(unit)
                return
            raise error.cause from None
        self._idle.append(actor)
        self._monitor.unit_done(unit)

    def _replace(self, actor: Any, unit: Unit, death: Exception) -> None:
        self._count_death(unit, death)
        self._finished = self._finished.plus(self._polls.pop(actor, Counters()))
        self._idle.append(self._actor())

    def _count_death(self, unit: Unit, death: Exception) -> None:
        self._deaths[unit.id] += 1
        if self._deaths[unit.id] >= DEATHS_OF_A_UNIT:
            keys = ", ".join(source.key for source in unit.sources[:3])
            reason = str(death).splitlines()[0]
            raise UserError(
                f"unit {unit.id} ({keys} …) lost its worker {DEATHS_OF_A_UNIT} times; the last time: {reason}"
            )
        time.sleep(min(0.1 * 2 ** self._deaths[unit.id], 10.0))

    def _poll(self) -> None:
        actors = [actor for actor, _ in self._busy.values()]
        refs = {actor.counters.remote(): actor for actor in actors}
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0.5) if refs else ([], [])
        for ref in ready:
            with suppress(RayActorError, RayTaskError):
                self._polls[refs[ref]] = ray.get(ref)

    def _counters(self) -> Counters:
        total = self._finished
        for counters in list(self._polls.values()):
            total = total.plus(counters)
        return total


@ray.remote(num_cpus=1, max_restarts=0)
class UnitActor:
    """A worker: its decoder child, its store, and an encoder; `counters` answers while `run` is at work."""

    def __init__(self, job: Job, tokenizers: list[Any]) -> None:
        encoder = RemoteEncoder(tokenizers) if tokenizers else None
        self._context = open_worker(job, encoder)
        self._worker = self._context.__enter__()

    def run(self, unit: Unit, uris: Mapping[str, str]) -> Counters:
        """See run_unit; returns what this actor has done so far."""
        run_unit(self._worker, unit, uris)
        return self._worker.counters

    def counters(self) -> Counters:
        """What this actor has done so far."""
        return self._worker.counters


@ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=3)
class TokenizerActor:
    """Encodes blocks for any worker; one process holds the weights once."""

    def __init__(self, job: Job) -> None:
        self._encoder: LocalEncoder = make_encoder(job)

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [n, H, W, 3] -> int32 codes [n, h, w]."""
        return self._encoder.submit(frames)()

    def canary(self) -> dict[str, Any]:
        """See canary.py."""
        return self._encoder.canary

    def node(self) -> str:
        """The node this actor runs on."""
        return str(ray.get_runtime_context().get_node_id())


class RemoteEncoder:
    """Sends blocks to tokenizer actors, its own node's first; frames in flight are bounded in bytes."""

    def __init__(self, actors: list[Any]) -> None:
        here = ray.get_runtime_context().get_node_id()
        near = [
            actor
            for actor, node in zip(actors, ray.get([a.node.remote() for a in actors]), strict=True)
            if node == here
        ]
        self._actors = near or actors
        self.canary: dict[str, Any] = ray.get(self._actors[0].canary.remote())
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
        return lambda: ray.get(ref)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[int]:
    """Joins or starts Ray; yields the number of CPUs. Only a Ray that we started is stopped."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # keeps Ray from warning about GPUs
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    if cluster.address is not None:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        folder = None
    else:
        folder = tempfile.mkdtemp(prefix="toto-ray-")  # never the shared default: that would join any other Ray here
        cpus = cluster.workers or _cores()
        ray.init(
            address="local",
            num_cpus=cpus + cluster.tokenizer_actors,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=folder,
            **quiet,
        )
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
