"""Engine `local`: units one after another in this process. Many such processes may share one target."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from toto.shards.commit import COMMITS
from toto.shards.store import open_store
from toto.tokenize import canary
from toto.tokenize.decoder import Decoder
from toto.tokenize.encoder import Encoder, LocalEncoder
from toto.tokenize.job import Job
from toto.tokenize.monitor import Monitor
from toto.tokenize.unfinished import remove_unfinished
from toto.tokenize.unit import run_unit
from toto.tokenize.units import Unit, Uris
from toto.tokenize.worker import Worker
from toto.tokenizers import Tokenizer


@contextmanager
def open_worker(job: Job, encoder: Encoder | None = None) -> Iterator[Worker]:
    """A worker of this process, with its own tokenizer unless an encoder is given."""
    store = open_store(job.out)
    remove_unfinished(store)
    with Decoder(job.timeout_s, job.memory_mb) as decoder:
        yield Worker(job, store, decoder, encoder or make_encoder(job))


def make_encoder(job: Job) -> LocalEncoder:
    """An encoder of this process."""
    return LocalEncoder(*make_tokenizer(job))


def make_tokenizer(job: Job) -> tuple[Tokenizer, dict[str, Any]]:
    """Loads the tokenizer here and holds its canary against the dataset's first one."""
    tokenizer = job.make_tokenizer()
    return tokenizer, canary.check(open_store(job.out), tokenizer, job.settings["resolution"])


def execute(job: Job, units: list[Unit], uris: Uris, monitor: Monitor) -> None:
    """Does what is left of the units, from a random place on, so that processes seldom meet on one unit."""
    start = random.randrange(len(units)) if units else 0
    with open_worker(job) as worker:
        monitor.watch(lambda: worker.counters)
        for unit in units[start:] + units[:start]:
            report = None
            if not worker.store.exists(f"{COMMITS}/{unit.id}.json"):
                report = run_unit(worker, unit, uris.of(unit.sources))
            monitor.unit_done(unit, report)
