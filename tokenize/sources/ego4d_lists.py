"""Ego4D's own lists, ego4d.json or else the manifest.csv of a folder of videos, to tables.

    ego4d.json      videos[]: video_uid, duration_sec, scenarios, video_metadata, split_*, redacted_intervals
                    clips[]: clip_uid, video_uid, video_start_sec, video_end_sec
    manifest.csv    video_uid (of clips, too: the name of the file), duration_sec, …

Rows of clips repeat what is known of their video. Everything is optional but the ids.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.sources.csv_table import find_columns, read_rows
from toto.tokenize.sources.lists import find_lists, read_json, read_lines
from toto.tokenize.sources.names import shown

CLIPS = "clips"
VERSIONS = ("v2_1", "v2", "v1")  # the newest first
OFFICIAL, MANIFEST = "ego4d.json", "manifest.csv"
VIDEOS = pa.schema(
    [
        ("source", pa.string()),
        ("video_uid", pa.string()),
        ("start_s", pa.float64()),  # of a clip, in its video; null for whole videos
        ("end_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("fps", pa.float64()),
        ("frames", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("split_em", pa.string()),  # episodic memory: train, val, test, several of them, or null
        ("split_av", pa.string()),  # audio-visual
        ("split_fho", pa.string()),  # hands and objects, forecasting
        ("is_stereo", pa.bool_()),
    ]
)
SCENARIOS = pa.schema([("source", pa.string()), ("scenario", pa.string())])
REDACTED = pa.schema([("source", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())])
_COLUMNS = {
    "uid": ("file_uid", "exported_clip_uid", "clip_uid", "video_uid"),
    "video": ("parent_video_uid", "video_uid"),
    "duration": ("duration_sec",),
}
_NO_UID = "(entry of a list without a uid)"
_UID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_JSON_BYTES = 512 * 2**20

Row = dict[str, Any]


def read_list(config: DatasetConfig, variant: str | None, ignored: Counter[str]) -> dict[str, Row] | None:
    """What a variant has, by uid: columns of `VIDEOS`, scenarios and redacted intervals. None where there is no list.

    ego4d.json is looked for in the root and the folders of `VERSIONS`, manifest.csv beside the videos; UserError when
    it is damaged.
    `annotations` may name a file of uids, as the download tool takes it: then only those are listed.
    """
    chosen = _chosen_uids(config)
    rows = _official(config if chosen is None else replace(config, annotations=None), variant, ignored)
    if chosen is None:
        return rows
    ignored["(not among the uids of `annotations`)"] += len((rows or {}).keys() - chosen)
    return {uid: (rows or {}).get(uid, {}) for uid in chosen}


def tables(sources: Sequence[str], rows: Mapping[str, Row]) -> dict[str, pa.Table]:
    """`videos`, one row for each source, whose uid alone is known when no list has it; where there are some,
    `scenarios` and `redacted` (intervals in the video, not in the clip)."""
    known = [(source, rows.get(source, {})) for source in sources]
    scenarios = [{"source": source, "scenario": text} for source, row in known for text in row.get("scenarios", ())]
    redacted = [{"source": source, **span} for source, row in known for span in row.get("redacted", ())]
    videos = [{"video_uid": source, **row, "source": source} for source, row in known]
    return {
        "videos": pa.Table.from_pylist(videos, VIDEOS),
        **({"scenarios": pa.Table.from_pylist(scenarios, SCENARIOS)} if scenarios else {}),
        **({"redacted": pa.Table.from_pylist(redacted, REDACTED)} if redacted else {}),
    }


def _chosen_uids(config: DatasetConfig) -> dict[str, None] | None:
    """The uids of the file that `annotations` names, in its order; None when it names a folder or an official list."""
    for uri in find_lists(config, (".txt", ".csv")) if config.annotations else ():
        if uri == config.annotations and not uri.endswith(f"/{MANIFEST}"):
            return dict.fromkeys(word for line in read_lines(uri) for word in line.split() if _UID.fullmatch(word))
    return None


def _official(config: DatasetConfig, variant: str | None, ignored: Counter[str]) -> dict[str, Row] | None:
    for uri in find_lists(config, (".json",), VERSIONS):
        if uri.endswith(f"/{OFFICIAL}"):
            return dict(_of_json(uri, variant, ignored))
    beside = [] if variant is None else [variant, *(f"{version}/{variant}" for version in VERSIONS)]
    for uri in find_lists(config, (".csv",), beside):
        if uri.endswith(f"/{MANIFEST}"):
            return dict(_of_csv(uri, ignored))
    return None


def _of_json(uri: str, variant: str | None, ignored: Counter[str]) -> Iterator[tuple[str, Row]]:
    content = read_json(uri, _JSON_BYTES)
    if not isinstance(content, dict) or not isinstance(content.get("videos"), list):
        raise UserError(f"{shown(uri)}: no list of `videos` in it; get ego4d.json again")
    videos = {uid: video for video in content["videos"] if (uid := _uid(video, "video_uid"))}
    ignored[_NO_UID] += len(content["videos"]) - len(videos)
    if variant != CLIPS:
        yield from ((uid, _row(uid, video)) for uid, video in videos.items())
        return
    for clip in content.get("clips") or []:
        uid, parent = _uid(clip, "clip_uid"), _uid(clip, "video_uid")
        if uid is None or parent is None:
            ignored[_NO_UID] += 1
            continue
        start, end = _number(clip.get("video_start_sec")), _number(clip.get("video_end_sec"))
        row = _row(
            parent, {**videos.get(parent, {}), "duration_sec": None, "video_metadata": clip.get("clip_metadata")}
        )
        if start is not None and end is not None:
            row["duration_s"] = end - start
        yield uid, {**row, "start_s": start, "end_s": end}


def _row(video: str, facts: Mapping[str, Any]) -> Row:
    meta = facts.get("video_metadata")
    meta = meta if isinstance(meta, dict) else {}
    spans = [span for span in _list(facts.get("redacted_intervals")) if isinstance(span, dict)]
    return {
        "video_uid": video,
        "duration_s": _number(facts.get("duration_sec")),
        "fps": _number(meta.get("fps")),
        "frames": _whole(meta.get("num_frames")),
        "width": _whole(meta.get("display_resolution_width")),
        "height": _whole(meta.get("display_resolution_height")),
        "scenarios": [str(scenario) for scenario in _list(facts.get("scenarios"))],
        **{split: _text(facts.get(split)) for split in ("split_em", "split_av", "split_fho")},
        "is_stereo": facts["is_stereo"] if isinstance(facts.get("is_stereo"), bool) else None,
        "redacted": [
            {"start_s": _number(span.get("start_sec")), "end_s": _number(span.get("end_sec"))} for span in spans
        ],
    }


def _of_csv(uri: str, ignored: Counter[str]) -> Iterator[tuple[str, Row]]:
    lines = read_lines(uri)
    for row in read_rows(uri, lines[1:], find_columns(lines[0], _COLUMNS)):
        uid = _uid(row, "uid")
        if uid is None:
            ignored[_NO_UID] += 1
        else:
            video = row.get("video") or uid
            yield uid, {"video_uid": video, "duration_s": _number(row.get("duration"))}


def _uid(facts: Any, key: str) -> str | None:
    uid = facts.get(key) if isinstance(facts, dict) else None
    return uid if isinstance(uid, str) and _UID.fullmatch(uid) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    try:
        number = None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if number is not None and math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number < 2**31 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
