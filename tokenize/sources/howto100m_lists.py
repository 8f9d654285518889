"""HowTo100M's lists: HowTo100M_v1.csv names the videos, task_ids.csv what they show.

video_id,category_1,category_2,rank,task_id         names drift: `task`; copies add `path` or `video_path`
nVbIUDjzWY4,Cars & Other Vehicles,Motorcycles,27,52907
52907<tab>Change Motorcycle Oil                     task_ids.csv; with or without a header
"""

import re
from collections import Counter
from dataclasses import dataclass
from sys import intern

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.sources.csv_table import find_columns, read_rows
from toto.tokenize.sources.listed import is_name
from toto.tokenize.sources.lists import find_lists, read_lines
from toto.tokenize.sources.names import escape, shown

OFFICIAL = "HowTo100M_v1.csv"
_COLUMNS = {
    "id": ("video_id", "id"),
    "path": ("video_path", "path"),
    "category_1": ("category_1",),
    "category_2": ("category_2",),
    "rank": ("rank",),
    "task": ("task_id", "task"),
}
_TASK_COLUMNS = {"id": ("task_id", "id"), "text": ("task_name", "task", "text", "name")}
_TASKS = "task_ids.csv"
_ONE_VIDEO = re.compile(r"[\w-]{11}\.csv")  # what is said in one video, see howto100m_captions


@dataclass(frozen=True, slots=True)
class Video:
    """One row of the list."""

    path: str | None = None  # under the root, in copies of the list that say so
    category_1: str | None = None
    category_2: str | None = None
    rank: int | None = None  # among the search results of its task
    task_id: int | None = None


def read_videos(config: DatasetConfig, ignored: Counter[str]) -> dict[str, Video] | None:
    """Every listed video by its id; None where there is no list. UserError when there are two."""
    found = [
        uri
        for uri in find_lists(config, (".csv",))
        if (name := uri.rsplit("/", 1)[-1]) != _TASKS and not _ONE_VIDEO.fullmatch(name)
    ]
    lists = [uri for uri in found if uri.endswith(f"/{OFFICIAL}")][:1] or [uri for uri in found if _is_of_videos(uri)]
    if len(lists) > 1:
        raise UserError(
            f"{shown(lists[0])} and {shown(lists[1])} both list videos"
            f"\nset datasets.{config.name}.annotations to the one that counts"
        )
    if not lists:
        return None
    videos: dict[str, Video] = {}
    lines = read_lines(lists[0])
    for row in read_rows(lists[0], lines[1:], find_columns(lines[0], _COLUMNS)):
        key, video = _video(row)
        if not is_name(key):
            ignored["(line of a list without a video)"] += 1
        elif videos.setdefault(escape(key), video) is not video:
            ignored["(video listed twice)"] += 1
    return videos


def read_tasks(config: DatasetConfig) -> dict[int, str]:
    """What each task is called; empty where there is no task_ids.csv."""
    for uri in find_lists(config, (".csv",)):
        if uri.endswith(f"/{_TASKS}"):
            lines = read_lines(uri)
            delimiter = "\t" if "\t" in lines[0] else ","
            columns = find_columns(lines[0], _TASK_COLUMNS, delimiter)
            rows = read_rows(uri, lines, columns if len(columns) == 2 else {"id": 0, "text": 1}, delimiter)
            return {task: row["text"] for row in rows if (task := _whole(row.get("id"))) is not None and "text" in row}
    return {}


def _video(row: dict[str, str]) -> tuple[str, Video]:
    path = escape(row.get("path", "")) or None
    key = row.get("id") or (path or "").rsplit("/", 1)[-1].partition(".")[0]
    rank, task = _whole(row.get("rank")), _whole(row.get("task"))
    return key, Video(path, _word(row.get("category_1")), _word(row.get("category_2")), rank, task)


def _word(text: str | None) -> str | None:
    """One of a few words, kept once."""
    return intern(text) if text else None


def _is_of_videos(uri: str) -> bool:
    header = read_lines(uri)[0]
    is_of_captions = bool(find_columns(header, {"start": ("start",)}))
    return not is_of_captions and not {"id", "path"}.isdisjoint(find_columns(header, _COLUMNS))


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"-?\d{1,9}", text) else None
