"""The texts in webdataset shards: read with few requests, shard by shard, bounded, and once (tar_cache keeps them).

A text of more than 1 MiB is left out, and so is a whole suffix that has more than 256 MiB in all: its table would
be written with every plan, and read by everyone who opens the dataset.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from threading import Event
from typing import TypeVar

import pyarrow as pa
import xxhash

from toto.errors import UserError
from toto.tokenize.clip import SourceError
from toto.tokenize.ranges import Ranges
from toto.tokenize.sources.files import File
from toto.tokenize.sources.names import shown
from toto.tokenize.sources.samples import Sample, Text
from toto.tokenize.sources.tar_cache import cached
from toto.tokenize.sources.tar_index import Stopped
from toto.tokenize.sources.tars import side_by_side
from toto.tokenize.transient import TransientError

MAX_TEXT_BYTES = 2**20
MAX_TABLE_BYTES = 256 * 2**20
MAX_FACT_BYTES = 16 * 2**20  # with subtitles in it, a long video's .json has some MiB
T = TypeVar("T")
_TEXTS = pa.schema([("text", pa.string())])


def read_texts(samples: Sequence[Sample], suffix: str, ignored: Counter[str]) -> dict[str, str]:
    """Sample key -> its text with this suffix; what is too large or no UTF-8 is counted.

    UserError when a shard cannot be read.
    """
    wanted = _of_size(samples, suffix, MAX_TEXT_BYTES, ignored)
    if sum(size for _, _, size in _texts(wanted, suffix)) > MAX_TABLE_BYTES:
        ignored[f"({suffix}, more than 256 MiB in all)"] += len(wanted)
        return {}
    return read_facts(wanted, suffix, lambda text: text, ignored)


def read_facts(
    samples: Sequence[Sample], suffix: str, fact: Callable[[str], T | None], ignored: Counter[str]
) -> dict[str, T]:
    """Sample key -> what `fact` finds in its text, however many texts there are: one shard's are held at a time.

    Texts over 16 MiB and those that are no UTF-8 are counted. UserError when a shard cannot be read.
    """
    wanted = _of_size(samples, suffix, MAX_FACT_BYTES, ignored)
    shards = [list(group) for _, group in groupby(wanted, key=lambda sample: sample.shard.key)]

    def facts(shard: list[Sample], stop: Event) -> list[tuple[str, T | None, bool]]:
        pairs = _of_shard(shard, suffix, stop)
        return [(key, None if text is None else fact(text), text is None) for key, text in pairs]

    found = [line for lines in side_by_side(facts, shards) for line in lines]
    ignored["(text that is not UTF-8)"] += sum(unreadable for _, _, unreadable in found)
    return {key: value for key, value, _ in found if value is not None}


def _of_size(samples: Sequence[Sample], suffix: str, most: int, ignored: Counter[str]) -> list[Sample]:
    having = [sample for sample in samples if sample.text(suffix)]
    wanted = [sample for sample, text in zip(having, _texts(having, suffix), strict=True) if text[2] <= most]
    ignored[f"({suffix} of more than {most >> 20} MiB)"] += len(having) - len(wanted)
    return wanted


def _texts(samples: Sequence[Sample], suffix: str) -> list[Text]:
    return [text for sample in samples if (text := sample.text(suffix))]


def _of_shard(samples: Sequence[Sample], suffix: str, stop: Event) -> list[tuple[str, str | None]]:
    """(key, text) of samples of one shard, None where it is not UTF-8."""
    shard = samples[0].shard
    places = [(offset, size) for _, offset, size in _texts(samples, suffix)]
    asked = xxhash.xxh3_64_hexdigest(repr(places).encode())
    try:
        table = cached(shard, f"utf-8 texts {suffix} {asked}", lambda: _read(shard, places, stop))
    except (SourceError, TransientError) as error:
        raise UserError(f"{shown(shard.uri)}: cannot be read ({error}); put it right, or take it away") from error
    return list(zip([sample.key for sample in samples], table["text"].to_pylist(), strict=True))


def _read(shard: File, places: Sequence[tuple[int, int]], stop: Event) -> pa.Table:
    texts: list[str | None] = []
    with Ranges(shard.uri, shard.size) as ranges:
        for place in places:
            if stop.is_set():
                raise Stopped
            texts.append(_decoded(ranges.read(*place)))
    return pa.table([texts], _TEXTS)


def _decoded(data: bytes) -> str | None:
    """The text, without the mark that some programs put before it; None for what is no UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
