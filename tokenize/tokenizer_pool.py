"""The tokenizer actors of a run: those that have their weights, and those that the cluster has no room for yet."""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError

from toto.errors import UserError
from toto.tokenize.blame import TOKENIZER
from toto.tokenize.death import one_line
from toto.tokenize.job import Job
from toto.tokenize.last_words import End
from toto.tokenize.losses import Losses
from toto.tokenize.monitor import Monitor
from toto.tokenize.ray_session import Cluster, refuse_lost
from toto.tokenize.tokenizer_actor import Ready, get, tokenizer_actor
from toto.tokenize.waiting import Waiting

WORDS_WITHIN_S = 20.0  # Ray starts an actor anew in two or three
ASK_AGAIN_S = 0.2


class TokenizerPool:
    """Starts tokenizer actors, more as the cluster grows, and others for those that die before they are ready."""

    def __init__(self, job: Job, cluster: Cluster, monitor: Monitor, losses: Losses) -> None:
        self._job, self._cluster, self._monitor, self._losses = job, cluster, monitor, losses
        self._starting: dict[Any, Any] = {}
        self._ready: list[Ready] = []

    @property
    def count(self) -> int:
        """All of them."""
        return len(self._starting) + len(self._ready)

    def look(self) -> None:
        """Starts as many as were asked for, or as the cluster's GPUs can hold."""
        wanted, gpus = self._cluster.tokenizer_actors, self._cluster.gpus_per_tokenizer
        if wanted is None:
            wanted = int(ray.cluster_resources().get("GPU", 0) / gpus + 1e-6) if gpus else 0
        for _ in range(wanted - self.count):
            self._start()

    def wait_for_one(self) -> None:
        """Returns when one is ready; at once when none are used. Raises UserError when there is no GPU for any."""
        self.look()
        if not self.count and self._cluster.gpus_per_tokenizer:
            raise UserError(
                "this cluster has no GPU; on one that grows say how many --tokenizer-actors are wanted, "
                "or encode on CPUs: --set tokenizers.NAME.device=cpu"
            )
        waiting = Waiting("a tokenizer actor")
        while self._starting and not self.ready():
            ray.wait(list(self._starting), timeout=1.0)
            refuse_lost(self._cluster)
            waiting.look(False)

    def ready(self) -> list[Ready]:
        """Those that can encode now; raises UserError when they die again and again before they can."""
        done, _ = (
            ray.wait(list(self._starting), num_returns=len(self._starting), timeout=0) if self._starting else ([], [])
        )
        for ref in done:
            actor = self._starting.pop(ref)
            try:
                found = Ready(actor, *get(ref))
            except RayError as death:
                self._died(actor, why([actor], death))
                continue
            self._losses.is_ready(TOKENIZER)
            self._ready.append(found)
            self._monitor.remarks(found.remarks)
            self._monitor.event("tokenizer", node=found.node, gpus=found.gpus, canary=found.canary)
        return self._ready

    def cause_of_a_death(self, death: Exception) -> str:
        """Why one that was ready died, in one line."""
        return why([found.actor for found in self._ready], death)

    def _start(self) -> None:
        actor = tokenizer_actor(self._job, self._cluster.gpus_per_tokenizer)
        self._starting[actor.hello.remote()] = actor

    def _died(self, actor: Any, cause: str) -> None:
        """Another one for an actor that died before it was ready."""
        self._monitor.event("death", what=TOKENIZER, unit=None, cause=cause)
        ray.kill(actor)
        time.sleep(self._losses.lost(TOKENIZER, None, cause))
        self._start()


def why(actors: Sequence[Any], death: Exception) -> str:
    """The newest last words that these actors, started anew, have found; Ray's own words where there are none."""
    until, ends = time.monotonic() + WORDS_WITHIN_S, list[End]()
    asked = {actor.end_before.remote(): actor for actor in actors}
    while asked and (left := until - time.monotonic()) > 0:
        for ref in ray.wait(list(asked), timeout=left)[0]:
            actor = asked.pop(ref)
            try:
                ends += filter(None, [ray.get(ref)])
            except ActorUnavailableError:  # Ray is about to start it anew
                time.sleep(ASK_AGAIN_S)
                asked[actor.end_before.remote()] = actor
            except RayError:  # it died again, or for good
                pass
    return max(ends, key=lambda end: end.time).words[:300] if ends else one_line(death)
