"""A worker under Ray: its decoder child, its store, and an encoder; `counters` answers while `run` is at work."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from toto.tokenize.engine_local import open_worker
from toto.tokenize.flight import Flight
from toto.tokenize.job import Job
from toto.tokenize.metrics import WorkerMetrics
from toto.tokenize.one_source import OpenSource
from toto.tokenize.tokenizer_actor import Ready, RemoteEncoder
from toto.tokenize.tokenizers.remarks import remarks
from toto.tokenize.unit import UnitReport, run_unit, whoami
from toto.tokenize.units import PlannedSource, Unit
from toto.tokenize.worker import Counters


@ray.remote(num_cpus=1, max_restarts=0)
class UnitActor:
    """Does units one after another. Nothing that can fail happens in the constructor: Ray would tell of it as of a
    death.
    """

    def __init__(self, job: Job, remote: bool) -> None:
        self._job, self._remote = job, remote
        self._metrics = WorkerMetrics(job.name)

    def start(self) -> tuple[dict[str, Any], Counters]:
        """Its host, pid, node and remarks. Loads the tokenizer unless `remote` ones are used; UserError when its canary
        is refused."""
        self._encoder = RemoteEncoder() if self._remote else None
        self._context = open_worker(self._job, self._encoder)
        self._worker = self._context.__enter__()
        self._node = str(ray.get_runtime_context().get_node_id())
        return {**whoami(), "node": self._node, "remarks": remarks()}, self.counters()

    def run(
        self,
        unit: Unit,
        uris: Mapping[str, str],
        blamed: Mapping[str, tuple[str, str]],
        tokenizers: Sequence[Ready],
        share: int,
    ) -> tuple[UnitReport | None, Counters]:
        """See run_unit; returns its report and what this actor has done so far."""
        if self._encoder is not None:
            self._encoder.use(tokenizers, share)
        report = run_unit(self._worker, unit, uris, blamed)
        if report is not None:
            report = replace(report, worker={**report.worker, "node": self._node})
            self._metrics.unit_done()
        return report, self.counters()

    def alone(
        self, source: PlannedSource, uri: str, attempt: int, tokenizers: Sequence[Ready], share: int
    ) -> tuple[bool, Counters]:
        """Does one source as in a unit, and throws its rows away: for the case that it kills this process, or the
        tokenizer's. Whether it had any frames."""
        if self._encoder is not None:
            self._encoder.use(tokenizers, share, again=False)
        flight = Flight(self._worker.encoder.ahead)
        counters = Counters()
        tried = OpenSource(replace(self._worker, counters=counters), flight, source, uri, attempt)
        flight.land()
        tried.finish(lambda row: None)
        return counters.kept > 0, self.counters()

    def counters(self) -> Counters:
        """What this actor has done so far; also tells Ray's metrics."""
        now = replace(self._worker.counters, in_flight=self._worker.encoder.in_flight)
        self._metrics.show(now)
        return now


def unit_actor(job: Job, remote: bool, resource: str | None) -> Any:
    """A new worker; Ray keeps it waiting while no node has room, and an autoscaler takes that as demand."""
    needs = {resource: 0.001} if resource else None
    return UnitActor.options(resources=needs, max_concurrency=2).remote(job, remote)  # type: ignore[attr-defined]
