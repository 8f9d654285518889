"""One source -> rows in the unit's shard and one line of results; or no row and the reason why.

    OpenSource: decode, send frames off ─▶ (other sources meanwhile) ─▶ settled: all codes are there ─▶ finish: write

A decoder that dies takes its source with it only when that happens three times in a row; until then it may have
been the machine's fault. Rows reach the shard after the whole source was read, so a source counts whole or not at all.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from toto.plain import counted
from toto.shards import ids
from toto.shards.protocols import beside_grid
from toto.shards.schema import RowRecord
from toto.tokenize.clip import DecoderDied, DecodeRequest, SourceError, SourceInfo
from toto.tokenize.crash import reached
from toto.tokenize.flight import Flight
from toto.tokenize.job import Job
from toto.tokenize.rows import RowBuilder, Spool
from toto.tokenize.units import PlannedSource
from toto.tokenize.worker import Worker

TRIES = 3
BACK_OFF_S = 0.2


class OpenSource:
    """A source whose frames are all decoded, while some of its rows may still wait for their codes.

    A source that cannot be used has a line only. `blamed`: (reason, detail) of one that is known to kill workers.
    """

    def __init__(
        self,
        worker: Worker,
        flight: Flight,
        source: PlannedSource,
        uri: str,
        attempt: int,
        blamed: tuple[str, str] | None = None,
    ) -> None:
        self._worker = worker
        self._spool: Spool | None = None
        self._line: dict[str, Any] = {
            **{name: getattr(source, name) for name in ("key", "split", "kind", "label", "size")},
            **{"attempt": attempt, "status": "ok", "frames_decoded": 0, "frames_kept": 0},
            **{"flags": 0, "errors": 0, "rows": 0, "tokens": 0, "run_lengths": []},
        }
        try:
            if blamed is not None:
                raise SourceError(*blamed)
            self._spool, info = _read_with_tries(worker, flight, source, uri)
            self._line |= _facts(info)
            _refuse_short(worker, info)
        except SourceError as error:
            self.close()
            self._line |= {"status": "quarantined", "reason": error.reason, "detail": error.detail}
            worker.counters.quarantine(error.reason)

    @property
    def settled(self) -> bool:
        """Whether all of its codes are there."""
        return self._spool is None or not self._spool.waiting

    def finish(self, write: Callable[[RowRecord], None]) -> dict[str, Any]:
        """Writes its rows, which must be settled; returns its line of `SOURCES_SCHEMA`."""
        spool, line, counters = self._spool, self._line, self._worker.counters
        if spool is not None:
            for row in spool.drain(line["flags"]):
                write(row)
            line |= {"rows": spool.rows, "tokens": spool.tokens, "run_lengths": spool.run_lengths}
            line["flags"] |= spool.flags
            counters.tokens += spool.tokens
        self.close()
        counters.sources += 1
        reached("after_source")
        return line

    def close(self) -> None:
        """Gives its rows up."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None


def decode_request(job: Job, source: PlannedSource, uri: str) -> DecodeRequest:
    """What the decoder is asked for."""
    settings, moments = job.settings, source.moments
    rule: dict[str, Any] = {name: settings[name] if moments is None else None for name in ("stride", "fps", "uniform")}
    return DecodeRequest(
        key=source.key,
        uri=uri,
        kind=source.kind,
        animated=job.animated,
        **rule,
        **{name: settings[name] for name in ("crop", "resolution", "views", "seed")},
        patch=job.tokenizer["patch"],
        run_frames=None if settings["run_frames"] == "all" else settings["run_frames"],
        pixels=settings["keep_pixels"],
        codes=job.has_codes,
        flips=settings.get("flips", False),
        protocols=tuple(protocol.name for protocol in beside_grid(settings, source.split)),
        positions=moments,
        most_frames=settings.get("most_frames"),
    )


def _read_with_tries(worker: Worker, flight: Flight, source: PlannedSource, uri: str) -> tuple[Spool, SourceInfo]:
    if source.size < 0:
        raise SourceError("missing", "it is listed, but it is not there")
    tried = 0
    while True:
        spool = Spool()
        try:
            return spool, _read(worker, flight, source, uri, spool)
        except DecoderDied as died:
            spool.close()
            tried += 1
            if tried == TRIES:
                raise SourceError(died.reason, f"{TRIES} times: {died.detail}") from None
            time.sleep(BACK_OFF_S * 2**tried)
        except BaseException:
            spool.close()
            raise


def _read(worker: Worker, flight: Flight, source: PlannedSource, uri: str, spool: Spool) -> SourceInfo:
    dtype = ids.id_dtype(worker.job.tokenizer["vocab_size"])
    builder = RowBuilder(source.key, source.label, spool, worker.encoder, flight, dtype)
    counters = worker.counters
    for item in worker.decoder.decode(decode_request(worker.job, source, uri)):
        if isinstance(item, SourceInfo):
            builder.finish(ids.KIND_IMAGE if item.kind == "image" else ids.KIND_VIDEO)
            counters.decoded += item.frames_decoded
            return item
        counters.kept += len(item.index)
        builder.add(item)
    raise AssertionError("a decoder ends every source with its facts or an error")


def _refuse_short(worker: Worker, info: SourceInfo) -> None:
    wanted = worker.job.settings["min_frames"]
    if info.kind == "video" and info.frames_kept < wanted:
        raise SourceError("too_short", f"{counted(info.frames_kept, 'kept frame')} of at least {wanted}")


def _facts(info: SourceInfo) -> dict[str, Any]:
    names = (
        "kind",
        "codec",
        "width",
        "height",
        "fps",
        "rate",
        "frames_decoded",
        "frames_kept",
        "duration_s",
        "flags",
        "errors",
    )
    facts = {name: getattr(info, name) for name in names}
    if info.fps is not None and not np.isfinite(info.fps):
        facts["fps"] = None
    return {**facts, "detail": info.detail or None}
