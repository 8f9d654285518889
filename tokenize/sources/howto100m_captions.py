"""What is said in HowTo100M's videos: caption.json of all, or one CSV for each; up to 64 MiB in all.

    {"nVbIUDjzWY4": {"text": ["…"], "start": [1.5], "end": [4.0]}}     caption.json or raw_caption.json, seconds
    start,end,text                                                     captions/nVbIUDjzWY4.csv
    end,start,task,text,video_id                                       a CSV of several videos

The official caption.json has gigabytes, more than a table that is written with every plan should: such files are
counted and left alone.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from toto.config import DatasetConfig
from toto.tokenize.sources.csv_table import find_columns, read_rows
from toto.tokenize.sources.lists import find_lists, read_json, read_lines, read_within
from toto.tokenize.sources.names import escape

MAX_BYTES = 64 * 2**20
_JSON = ("caption.json", "raw_caption.json")
_COLUMNS = {"id": ("video_id", "id"), "start": ("start",), "end": ("end",), "text": ("text", "caption")}
_FOLDERS = ("captions",)
_SECONDS = re.compile(r"\d{1,9}(\.\d{0,9})?")

Caption = tuple[str, float, float, str]  # video, start and end in seconds, text


def read_captions(config: DatasetConfig, videos: Collection[str], ignored: Counter[str]) -> list[Caption]:
    """The captions of these videos, in the order of the files; empty where there is nothing, or too much."""
    files = [uri for uri in find_lists(config, (".json",), _FOLDERS) if uri.rsplit("/", 1)[-1] in _JSON][:1]
    tables = [uri for uri in find_lists(config, (".csv",), _FOLDERS) if not files and _may_hold(uri, videos)]
    left = MAX_BYTES
    for uri in files + tables:
        data = read_within(uri, left)
        if data is None:
            ignored[f"(captions, more than {MAX_BYTES // 2**20} MiB in all)"] += 1
            return []
        left -= len(data)
    if files:
        return list(_of_json(read_json(files[0], MAX_BYTES), videos, ignored))
    return [caption for uri in tables for caption in _of_csv(uri, videos)]


def _may_hold(uri: str, videos: Collection[str]) -> bool:
    """A CSV with times; only files that may be of a listed video are opened."""
    name = escape(uri.rsplit("/", 1)[-1].removesuffix(".csv"))
    if name in videos:
        return True
    data = None if re.fullmatch(r"[\w-]{11}", name) else read_within(uri, MAX_BYTES)
    header = data.partition(b"\n")[0].decode("utf-8", "replace") if data else ""
    return {"id", "start", "end"} <= set(find_columns(header, _COLUMNS))


def _of_csv(uri: str, videos: Collection[str]) -> Iterator[Caption]:
    lines = read_lines(uri)
    columns = find_columns(lines[0], _COLUMNS)
    own = uri.rsplit("/", 1)[-1].removesuffix(".csv")
    for row in read_rows(uri, lines[1:], columns):
        start, end, video = row.get("start", ""), row.get("end", ""), escape(row.get("id") or own)
        if video in videos and _SECONDS.fullmatch(start) and _SECONDS.fullmatch(end):
            yield video, float(start), float(end), row.get("text", "")


def _of_json(content: Any, videos: Collection[str], ignored: Counter[str]) -> Iterator[Caption]:
    for video, said in content.items() if isinstance(content, dict) else ():
        if escape(video) in videos:
            try:
                lines = list(zip(said["start"], said["end"], said["text"], strict=True))
                yield from [(escape(video), float(start), float(end), str(text)) for start, end, text in lines]
            except (KeyError, TypeError, ValueError):
                ignored["(captions of a video that cannot be read)"] += 1
