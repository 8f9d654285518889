"""Encoding in an actor of its own: one process holds the weights once, on a GPU or a CPU, and serves all workers.

    worker: RemoteEncoder ── blocks (object store) ──▶ TokenizerActor: Gatherer ─▶ batches of the tokenizer's size
                          ◀── codes ───────────────

Frames in flight are bounded in bytes for each actor: every worker has a share, and waits when it is used up.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError

from toto.tokenize.clip import one_line
from toto.tokenize.engine_local import make_tokenizer
from toto.tokenize.gather import Gatherer
from toto.tokenize.job import Job
from toto.tokenize.last_words import End, LastWords
from toto.tokenize.metrics import TokenizerMetrics
from toto.tokenize.tokenizers.remarks import remarks

BYTES_IN_FLIGHT = 64 * 1024 * 1024  # to one actor, of all workers: a quarter second of an H100's dVAE at 128 px
LEAST_SHARE = 2 * 1024 * 1024  # two blocks of 128 px: one is encoded while the next is decoded
CALLS = 10_000  # at once to one actor; what bounds them is their bytes
DEVICE_FAULTS = ("AcceleratorError", "OutOfMemoryError")  # torch's: after them a process is not to be trusted


@dataclass(frozen=True)
class Ready:
    """A tokenizer actor that has its weights."""

    actor: Any
    node: str
    gpus: list[str]  # that Ray gave it, by their names on its node
    canary: dict[str, Any]
    remarks: tuple[str, ...] = ()  # that its process has made


@ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=1)
class TokenizerActor:
    """Encodes blocks for any worker. When it dies, Ray starts it again and sends what it had not answered."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._made: tuple[Gatherer, dict[str, Any]] | None = None
        self._making = asyncio.Lock()
        self._metrics = TokenizerMetrics()
        self._words = LastWords(ray.get_runtime_context().get_actor_id() or "tokenizer")

    async def encode(self, planes: np.ndarray) -> np.ndarray:
        """uint8 [n, 3, H, W] -> int32 codes [n, h, w]."""
        frames = planes.transpose(0, 2, 3, 1)
        gatherer, _ = await self._tokenizer()
        self._metrics.came(frames)
        try:
            return await gatherer.encode(frames)
        except Exception as error:
            both = error, error.__cause__  # a plug-in's is the cause of the error that names it
            if any(type(fault).__name__ in DEVICE_FAULTS for fault in both):
                print(f"the device failed, this actor starts anew: {error}", file=sys.stderr, flush=True)
                self._words.say(one_line(error))
                os._exit(1)
            raise
        finally:
            self._metrics.went(frames, gatherer)

    async def hello(self) -> tuple[str, list[str], dict[str, Any], tuple[str, ...]]:
        """Its node, GPUs, canary and remarks, once it has its weights; raises UserError when the canary is refused."""
        _, canary = await self._tokenizer()
        context = ray.get_runtime_context()
        return str(context.get_node_id()), context.get_accelerator_ids().get("GPU", []), canary, remarks()

    async def end_before(self) -> End | None:
        """How the process before this one ended; None for the first one."""
        return self._words.before

    async def _tokenizer(self) -> tuple[Gatherer, dict[str, Any]]:
        async with self._making:
            if self._made is None:
                made = await asyncio.get_running_loop().run_in_executor(None, make_tokenizer, self._job)
                self._made = (Gatherer(made[0]), made[1])
        return self._made


def tokenizer_actor(job: Job, gpus: float) -> Any:
    """A new one, with this share of a GPU; Ray keeps it waiting while no node has room."""
    options = TokenizerActor.options(num_gpus=gpus, max_concurrency=CALLS)  # type: ignore[attr-defined]
    return options.remote(job)


@dataclass
class _Lane:
    """The way to one actor."""

    actor: Any
    near: bool
    bytes: int = 0  # of this worker's frames on it


class RemoteEncoder:
    """Sends a worker's blocks to tokenizer actors: to its own node's, unless those have much more to do than others."""

    def __init__(self) -> None:
        self._here = ray.get_runtime_context().get_node_id()
        self._lanes: dict[Any, _Lane] = {}
        self._sent: dict[Any, tuple[_Lane, int]] = {}
        self._how: dict[str, Any] = {}
        self.canary: dict[str, Any] = {}
        self.ahead = LEAST_SHARE
        self.in_flight = 0

    def use(self, ready: Sequence[Ready], share: int, again: bool = True) -> None:
        """For the next task: the actors that there are now, at least one, and the bytes that it may have in flight.

        `again`: whether frames are sent once more to an actor that died with them.
        """
        self._how = {} if again else {"max_task_retries": 0}
        self._lanes = {
            found.actor: self._lanes.get(found.actor) or _Lane(found.actor, found.node == self._here) for found in ready
        }
        self.canary = ready[0].canary
        self._sent.clear()  # of a task that failed: nobody waits for it
        self.in_flight = 0
        for lane in self._lanes.values():
            lane.bytes = 0
        self.ahead = max(share, LEAST_SHARE)

    def submit(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """The codes come when the returned function is called; it waits for them."""
        while self._sent and self.in_flight + frames.nbytes > self.ahead:
            (done,), _ = ray.wait(list(self._sent))
            self._arrived(done)
        lane = min(self._lanes.values(), key=lambda lane: lane.bytes + (0 if lane.near else self.ahead // 2))
        planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))  # no copy: so they lie in memory
        ref = lane.actor.encode.options(**self._how).remote(planes)
        self._sent[ref] = lane, frames.nbytes
        lane.bytes += frames.nbytes
        self.in_flight += frames.nbytes
        return partial(self._take, ref)

    def _take(self, ref: Any) -> np.ndarray:
        codes: np.ndarray = get(ref)
        self._arrived(ref)
        return codes

    def _arrived(self, ref: Any) -> None:
        lane, size = self._sent.pop(ref, (None, 0))
        if lane is not None:
            lane.bytes -= size
        self.in_flight -= size


def share(actors: int, workers: int) -> int:
    """Bytes that each of so many workers may have on the way to so many tokenizer actors."""
    return max(LEAST_SHARE, BYTES_IN_FLIGHT * actors // max(1, workers))


def get(refs: Any) -> Any:
    """ray.get, with the error that a task raised in place of Ray's wrapping of it."""
    try:
        return ray.get(refs)
    except RayTaskError as error:
        raise error.cause from error
