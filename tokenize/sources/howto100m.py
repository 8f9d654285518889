"""HowTo100M: instructional videos from YouTube, all in the split "train", without labels.

    <any folders>/nVbIUDjzWY4.mp4           any video suffix; or where the list's video_path says
    00000.tar 00001.tar …                   video2dataset's shards; a sample's .json says which video it is
    HowTo100M_v1.csv, task_ids.csv, caption.json      under the root, in annotations/, or where `annotations` says

The list decides what there is: `annotations` may name a CSV of a part of it. Without a list every video is taken.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from toto.config import DatasetConfig
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import File, nothing_here
from toto.tokenize.sources.howto100m_captions import read_captions
from toto.tokenize.sources.howto100m_lists import OFFICIAL, Video, read_tasks, read_videos
from toto.tokenize.sources.listed import Shelf, check_found, listed_source, no_list
from toto.tokenize.sources.names import VIDEO_SUFFIXES, suffix_of
from toto.tokenize.sources.samples import STATUS_SUFFIX, Sample, read_samples
from toto.tokenize.sources.source_table import SourceTable
from toto.tokenize.sources.tars import find, packed_error
from toto.tokenize.sources.texts import read_facts

SPLITS = ("train",)
VIDEOS = pa.schema(
    [
        ("source", pa.string()),
        ("video_id", pa.string()),
        ("category_1", pa.string()),
        ("category_2", pa.string()),
        ("rank", pa.int32()),
        ("task_id", pa.int32()),
        ("task", pa.string()),
    ]
)
CAPTIONS = pa.schema([("source", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())])
_ADDRESS = re.compile(r"(?:[?&]v=|youtu\.be/|/embed/|/shorts/)([A-Za-z0-9_-]{11})(?![A-Za-z0-9_-])")
_CLIP = re.compile(r"\d{5,}(_\d{5})")  # video2dataset: 0000008_00001 is a clip of 0000008


def read(config: DatasetConfig) -> Listing:
    """All listed videos; keys are ids (`nVbIUDjzWY4`), in shards of clips with the clip's number (`nVbIUDjzWY4_00001`).

    `videos` has the list's columns and the task's name; `captions` start, end (seconds) and text, where there are
    some and not too many (howto100m_captions). UserError when the root is not there or holds no listed video.
    """
    base.chosen_splits(config, SPLITS)
    sources, video_of, listed, ignored = _sources(config)
    check_found(config, sources)
    tables = _tables(config, sources, video_of, listed or {}, ignored)
    warnings = (no_list(config, [OFFICIAL], len(sources)),) if listed is None else ()
    return Listing(sources, tables, dict(+ignored), warnings=warnings)


def _sources(config: DatasetConfig) -> tuple[SourceTable, dict[str, str], dict[str, Video] | None, Counter[str]]:
    """(sources, clip -> its video, listed videos or None where there is no list, counts of what was left out)."""
    files, pieces, ignored = _files(config)
    listed = read_videos(config, ignored)
    if listed is None and not files:
        raise nothing_here(config, "videos", ignored)
    shelf, known = Shelf(files, _name), listed or {}
    video_of = {piece: video for video, names in pieces.items() for piece in names if piece != video}
    names = shelf.names() if listed is None else [name for video in listed for name in pieces.get(video, [video])]

    def source(name: str) -> Source:
        file = shelf.take(name, known.get(video_of.get(name, name), Video()).path)
        return listed_source(config, name, file, SPLITS[0], None, ".mp4")

    sources = SourceTable.of(source(name) for name in dict.fromkeys(names))
    sources.sort(SPLITS)
    shelf.count_left(ignored)
    return sources, video_of, listed, ignored


def _files(config: DatasetConfig) -> tuple[list[File], dict[str, list[str]], Counter[str]]:
    """(files and samples of shards, video -> names of its pieces in shards, counts of what was left out)."""
    found = find(config, VIDEO_SUFFIXES | {STATUS_SUFFIX})
    if found.packed and not found.files and not found.tars:
        raise packed_error(found.packed[0])
    statuses = [file for file in found.files if suffix_of(file.key) == STATUS_SUFFIX]
    samples = read_samples(config, found.tars, statuses, found.ignored)
    video_ids = read_facts(samples, ".json", _video_id, found.ignored)
    pieces: dict[str, list[str]] = defaultdict(list)
    members = []
    samples.reverse()
    while samples:  # in their order, and so that there are never all samples and all members
        sample = samples.pop()
        own = sample.key.rsplit("/", 1)[-1]
        video = video_ids.get(sample.key) or own
        clip = _CLIP.fullmatch(own)
        name = video + clip[1] if clip and video != own else video
        pieces[video].append(name)
        members.append(_named(sample, name))
    files = [file for file in found.files if suffix_of(file.key) in VIDEO_SUFFIXES]
    return files + members, {video: sorted(set(names)) for video, names in pieces.items()}, found.ignored


def _named(sample: Sample, name: str) -> File:
    return replace(sample.media, key=f"{sample.shard.key}/{name}{suffix_of(sample.media.key)}")


def _video_id(meta: str) -> str | None:
    """The YouTube id in a sample's .json: of its address, else as yt-dlp put it down; None where there is none."""
    try:
        facts: Any = json.loads(meta)
        address = _ADDRESS.search(str(facts.get("url", "")))
        info = (facts.get("yt_meta_dict") or {}).get("info") or {}
        noted = str(info.get("id") or facts.get("video_id") or "")
    except (ValueError, AttributeError, RecursionError):
        return None
    return address[1] if address else noted if re.fullmatch(r"[\w-]{11}", noted) else None


def _name(file: File) -> str:
    """The text before the first dot, as the official loaders have it."""
    return file.parts[-1].partition(".")[0]


def _tables(
    config: DatasetConfig,
    sources: SourceTable,
    video_of: Mapping[str, str],
    known: Mapping[str, Video],
    ignored: Counter[str],
) -> dict[str, pa.Table]:
    """`videos`, and `captions` where there are some; also from the root, where `annotations` names a list alone."""
    places = [config] if config.annotations is None else [config, replace(config, annotations=None)]
    tasks = next(filter(None, map(read_tasks, places)), {})
    whole = {name for name in sources.keys.to_pylist() if name not in video_of}
    captions = next(filter(None, (read_captions(place, whole, ignored) for place in places)), [])
    tables = {"videos": _videos(sources, video_of, known, tasks)}
    if captions:
        tables["captions"] = pa.table([list(column) for column in zip(*captions, strict=True)], schema=CAPTIONS)
    return tables


def _videos(
    sources: SourceTable, video_of: Mapping[str, str], known: Mapping[str, Video], tasks: Mapping[int, str]
) -> pa.Table:
    keys = sources.keys.to_pylist()
    ids = [video_of.get(key, key) for key in keys]
    videos = [known.get(video, Video()) for video in ids]
    columns = (
        keys,
        ids,
        [video.category_1 for video in videos],
        [video.category_2 for video in videos],
        [video.rank for video in videos],
        [video.task_id for video in videos],
        [None if video.task_id is None else tasks.get(video.task_id) for video in videos],
    )
    return pa.table(columns, schema=VIDEOS)
