"""Kinetics' lists of clips, in the forms that are around, to `Clip`s.

    label,youtube_id,time_start,time_end,split,is_cc    official CSVs (K400 quotes labels, others do not)
    youtube_id,time_start,time_end,split                official test CSVs without labels
    abseiling/0wR5jVB-WPk_000417_000427.mp4 0           mmaction2's kinetics400_train_list_videos.txt
    val/abseiling/0wR5jVB-WPk.mp4 0                     older lists of files without times: vallist.txt

Labels are indices into the sorted names over all lists, as in the official label maps; those of lists
of paths are taken as given, and named by the clips' folders where each label has one of its own, else by their
numbers (`val/<id>.mp4 3`: all lie in `val`). The split is in the list's name.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from sys import intern

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.sources.csv_table import find_columns, read_rows
from toto.tokenize.sources.listed import no_lists
from toto.tokenize.sources.lists import find_lists, read_lines
from toto.tokenize.sources.names import shown, suffix_of

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")
_SPLIT_WORDS = {"valid": "val", "validate": "val", "validation": "val"}
_SPLIT = re.compile(r"(?<![a-z])(train|validation|validate|valid|val|test)(?:list)?(?![a-z])")
_COLUMNS = {
    "id": ("youtube_id", "ytid", "video_id", "id"),
    "label": ("label", "class", "label_name"),
    "start": ("time_start", "start_time", "start"),
    "end": ("time_end", "end_time", "end"),
}
_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_STEM = re.compile(r"([A-Za-z0-9_-]{11})(?:_(\d{1,6})_(\d{1,6}))?")  # <youtube id>_<start:06d>_<end:06d>
_PATH_LINE = re.compile(r"(\S.*?)\s+(\d{1,9})\s*")


@dataclass(frozen=True, slots=True)
class Clip:
    """One line of a list."""

    split: str
    youtube_id: str  # 11 characters
    start_s: int | None  # seconds in the YouTube video
    end_s: int | None
    name: str | None  # of the class, in lists of paths the folder; None in test lists
    label: int | None = None  # given by the list itself (mmaction2)

    @property
    def stem(self) -> str:
        """The clip's official file name without suffix."""
        if self.start_s is None or self.end_s is None:
            return self.youtube_id
        return f"{self.youtube_id}_{self.start_s:06d}_{self.end_s:06d}"

    @property
    def key(self) -> str:
        """The same whichever way the files lie on disk, so that the same clips give the same dataset."""
        return f"{self.split}/{self.stem}"


def read_clips(lists: Mapping[str, str], ignored: Counter[str]) -> tuple[dict[str, Clip], dict[int, str]]:
    """Every clip of all lists by its key, and the classes: label -> name."""
    clips: dict[str, Clip] = {}
    for split, uri in lists.items():
        for clip in _parse(uri, split):
            if clip is None:
                ignored["(line of a list without a clip)"] += 1
            elif clips.setdefault(clip.key, clip) is not clip:
                ignored["(clip listed twice)"] += 1
    return clips, _classes(clips.values())


def split_of(name: str) -> str | None:
    """The split in the name of a file or folder: `videos_train`, `kinetics-400_val.csv`, `validate`."""
    match = _SPLIT.search(name.lower())
    return _SPLIT_WORDS.get(match.group(1), match.group(1)) if match else None


def parse_stem(name: str) -> tuple[str, int | None, int | None] | None:
    """(YouTube id, start, end) of a file's name, times None where it has none; None for other names."""
    match = _STEM.fullmatch(os.path.splitext(name)[0])
    if match is None:
        return None
    youtube_id, start, end = match.groups()
    return youtube_id, None if start is None else int(start), None if end is None else int(end)


def choose_lists(config: DatasetConfig) -> dict[str, str]:
    """Split -> its list, of those that are there; UserError when there are none, or two for one split."""
    found = [uri for uri in find_lists(config, (".csv", ".txt")) if _is_of_clips(_name(uri))]
    official = [uri for uri in found if suffix_of(uri) == ".csv"] or found
    chosen = [uri for uri in official if _folder(uri) == _folder(official[0])]
    by_split: dict[str, str] = {}
    for uri in chosen:
        other = by_split.setdefault(split_of(_name(uri)) or "", uri)
        if other != uri:
            raise UserError(
                f"{shown(_folder(uri))}: {_name(other)} and {_name(uri)} list the same split"
                f"\nset datasets.{config.name}.annotations to a folder with the lists of one dataset"
            )
    if not chosen:
        raise no_lists(config, "train.csv, val.csv, test.csv")
    return by_split


def _is_of_clips(name: str) -> bool:
    return split_of(name) is not None and "rawframes" not in name  # mmaction2's lists of extracted frames


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def _folder(uri: str) -> str:
    return uri.rpartition("/")[0]


def _parse(uri: str, split: str) -> Iterator[Clip | None]:
    """The clips of one list; None for a line that holds none."""
    lines = read_lines(uri)
    first = lines[0] if lines else ""
    columns = find_columns(first, _COLUMNS)
    if "id" in columns:
        return (_csv_clip(split, row) for row in read_rows(uri, lines[1:], columns))
    if _PATH_LINE.fullmatch(first):
        return (_path_clip(split, line) for line in lines if line.strip())
    expected = "a CSV with a youtube_id column or lines of `path label`"
    raise UserError(f"{shown(uri)}: begins {first[:60]!r}; expected {expected}")


def _csv_clip(split: str, row: dict[str, str]) -> Clip | None:
    try:
        start, end = _seconds(row.get("start")), _seconds(row.get("end"))
    except (ValueError, OverflowError):
        return None
    if not _ID.fullmatch(row.get("id", "")):  # spreadsheets leave #NAME? for ids that begin with -
        return None
    return Clip(split, row["id"], start, end, intern(row["label"]) if row.get("label") else None)


def _seconds(text: str | None) -> int | None:
    if not text:
        return None
    seconds = round(float(text))
    if not 0 <= seconds < 10**6:
        raise ValueError(f"{text} s is no time in a video")
    return seconds


def _path_clip(split: str, line: str) -> Clip | None:
    match = _PATH_LINE.fullmatch(line)
    parsed = parse_stem(match.group(1).rsplit("/", 1)[-1]) if match else None
    if match is None or parsed is None:
        return None
    path, label = match.groups()
    return Clip(split, *parsed, name=PurePosixPath(path).parent.name, label=int(label))


def _classes(clips: Collection[Clip]) -> dict[int, str]:
    given = {(clip.label, clip.name or "") for clip in clips if clip.label is not None}
    if given:
        labels, folders = {label for label, _ in given}, {folder for _, folder in given if folder}
        is_one_to_one = len(labels) == len(folders) == len(given)
        return {label: folder if is_one_to_one else str(label) for label, folder in sorted(given)}
    return dict(enumerate(sorted({clip.name for clip in clips if clip.name is not None})))
