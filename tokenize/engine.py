"""Which engine does the units: this process (`local`), a Ray of our own, or a cluster that somebody else started.

A cluster is joined before anything is listed or planned, so that a wrong address costs nothing and writes nothing. A
Ray of our own is started only when there are units to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toto.tokenize import engine_local
from toto.tokenize.job import Job
from toto.tokenize.monitor import Monitor
from toto.tokenize.units import Unit, Uris

if TYPE_CHECKING:
    from toto.tokenize.ray_session import Cluster

LOCAL, OWN_RAY = "local", "ray"


@dataclass(frozen=True)
class Options:
    """How to run; none of it changes a row."""

    engine: str = OWN_RAY  # or LOCAL, or the address of a cluster
    workers: int | None = None
    tokenizer_actors: int | None = None  # None: 0, or one for each GPU when the job's device is one
    gpus_per_tokenizer: float = 1.0
    worker_resource: str | None = None
    limit: int | None = None
    quiet: bool = False


@contextmanager
def joined(job: Job, options: Options) -> Iterator[None]:
    """In the cluster that the options name, if they name one. Raises UserError when it cannot be joined."""
    if options.engine in (LOCAL, OWN_RAY):
        yield
        return
    from toto.tokenize.ray_session import connected

    with connected(_cluster(job, options)):
        yield


def execute(job: Job, units: list[Unit], uris: Uris, monitor: Monitor, options: Options) -> None:
    """Does the units; raises UserError for what stops the work."""
    if options.engine == LOCAL:
        engine_local.execute(job, units, uris, monitor)
        return
    if options.engine == OWN_RAY:
        monitor.starting("Ray")
    from toto.tokenize import engine_ray

    engine_ray.execute(job, units, uris, monitor, _cluster(job, options))


def _cluster(job: Job, options: Options) -> "Cluster":
    from toto.tokenize.ray_session import Cluster

    address = None if options.engine == OWN_RAY else options.engine
    gpus = options.gpus_per_tokenizer if job.device.startswith("cuda") else 0.0
    return Cluster(address, options.workers, options.tokenizer_actors, gpus, options.worker_resource)
