"""webdataset shards, as video2dataset, img2dataset and others write them: one source for each sample with media.

    root/00000.tar          000000014.mp4, 000000014.txt, 000000014.json      -> 00000/000000014
    root/00000.parquet      status and error_message of every sample that was tried
    root/train/00001.tar    0000008_00001.mp4 (a clip of a video), .cls        -> train/00001/0000008_00001

Splits are the folders train, val and test where shards lie in them; else all is `all`, or with `held_out` train and
val, the clips of one video together. `.cls` becomes the label, `.txt` the table `captions`, `.json` the table `meta`.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from toto.config import DatasetConfig
from toto.plain import counted
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import File, nothing_here, root_error
from toto.tokenize.sources.folder import ALL, TRAIN, VAL, split_of
from toto.tokenize.sources.names import kind_of
from toto.tokenize.sources.samples import STATUS_SUFFIX, Sample, read_samples
from toto.tokenize.sources.source_table import SourceTable
from toto.tokenize.sources.tars import find, packed_error
from toto.tokenize.sources.texts import read_texts

SPLITS = (TRAIN, VAL, "test")
CAPTIONS = pa.schema([("source", pa.string()), ("text", pa.string())])
META = pa.schema([("source", pa.string()), ("json", pa.string())])
MAX_LABEL = 2**20
_CLIP = re.compile(r"(/\d{5,})_\d{5}$")  # video2dataset: 0000008_00001 is a clip of 0000008


class _Labels(NamedTuple):
    of: dict[str, int]  # by the key of a sample
    classes: dict[int, str]
    numbered: bool  # by the files themselves


def read(config: DatasetConfig) -> Listing:
    """All samples with a video or picture; keys are `<shard without .tar>/<sample>`.

    UserError when there are none, or a shard is compressed or cannot be read.
    """
    found = find(config, frozenset({STATUS_SUFFIX}))
    if found.packed:
        raise packed_error(found.packed[0])
    if not found.tars:
        raise nothing_here(config, ".tar shards", found.ignored)
    has_folders = any(_folder(shard) in SPLITS for shard in found.tars)
    splits = SPLITS if has_folders else (TRAIN, VAL) if config.held_out else (ALL,)
    chosen = base.chosen_splits(config, splits)
    shards = [shard for shard in found.tars if not has_folders or _folder(shard) in chosen]
    if has_folders:
        outside = sum(_folder(shard) not in SPLITS for shard in found.tars)
        found.ignored["(shard in none of the folders train, val, test)"] += outside

    def split(sample: Sample) -> str:
        return _folder(sample.shard) if has_folders else _held_out(sample.key, config)

    every = read_samples(config, shards, found.files, found.ignored)
    samples = [sample for sample in every if split(sample) in chosen]
    if not samples:
        raise root_error(config, f"no videos or pictures in its {counted(len(shards), 'shard')}")
    words = read_texts(every, ".cls", found.ignored)
    if not _labels(words).numbered:  # their numbers must not depend on which splits are chosen
        others = [shard for shard in found.tars if has_folders and _folder(shard) in {*SPLITS} - {*chosen}]
        words |= read_texts(read_samples(config, others, found.files, Counter()), ".cls", Counter())
    return _listing(samples, _labels(words), split, splits, found.ignored)


def _folder(shard: File) -> str:
    """The first folder above a shard; "" at the root."""
    return shard.parts[0] if len(shard.parts) > 1 else ""


def _held_out(key: str, config: DatasetConfig) -> str:
    """The split of a sample by its key; that of a clip by its video's."""
    return split_of(_CLIP.sub(r"\1", key), config.held_out)


def _listing(
    samples: Sequence[Sample],
    labels: _Labels,
    split: Callable[[Sample], str],
    splits: Sequence[str],
    ignored: Counter[str],
) -> Listing:
    sources = SourceTable.of(_source(sample, split(sample), labels.of.get(sample.key)) for sample in samples)
    sources.sort(splits)
    tables = {
        "captions": _table(sources, read_texts(samples, ".txt", ignored), CAPTIONS),
        "meta": _table(sources, read_texts(samples, ".json", ignored), META),
    }
    tables = {name: table for name, table in tables.items() if len(table)}
    if labels.classes:
        classes = base.classes_table(labels.classes)
        tables |= {"labels": base.labels_table(sources, labels.classes), "classes": classes}
    return Listing(sources, tables, dict(+ignored), labels.numbered)


def _source(sample: Sample, split: str, label: int | None) -> Source:
    media = sample.media
    return Source(sample.key, media.uri, kind_of(media.key), split, label, media.size, media.mtime_us, media.etag)


def _table(sources: SourceTable, texts: Mapping[str, str], schema: pa.Schema) -> pa.Table:
    keys = [key for key in sources.keys.to_pylist() if key in texts]
    return pa.table([keys, [texts[key] for key in keys]], schema)


def _labels(texts: Mapping[str, str]) -> _Labels:
    """What `.cls` files hold; of words, the index among them.

    Numbered classes are named by all numbers up to the largest, so that one that comes later keeps its number.
    """
    words = {key: text.strip() for key, text in texts.items()}
    numbers = {key: int(word) for key, word in words.items() if word.isascii() and word.isdigit() and len(word) < 8}
    if len(numbers) == len(words) and max(numbers.values(), default=0) < MAX_LABEL:
        return _Labels(numbers, {i: str(i) for i in range(max(numbers.values(), default=-1) + 1)}, True)
    classes = dict(enumerate(sorted(set(words.values()))))
    index = {word: label for label, word in classes.items()}
    return _Labels({key: index[word] for key, word in words.items()}, classes, False)
