"""Kinetics-400, -600 and -700: the clips that the official lists name, wherever they lie under the root.

    train/<id>_<start>_<end>.mp4                     cvdf: flat; replacement*/ has good copies of bad files
    videos/val/<class>/<id>_<start>_<end>.mp4        class folders, with spaces or with _
    videos_train/<class>/<id>_<start>_<end>.mp4      mmaction2
    annotations/{train,val,test}.csv                 see kinetics_lists

Clips are found by split, YouTube id and times; folder names decide the split, never the class. A clip that is
listed and not there stays in the listing (quarantine calls it missing); a file in no list is only counted.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import pyarrow as pa

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import File
from toto.tokenize.sources.kinetics_lists import SPLITS, TEST, Clip, choose_lists, parse_stem, read_clips, split_of
from toto.tokenize.sources.listed import UNLISTED, absent, check_found, listed_source, stem, these_splits
from toto.tokenize.sources.names import VIDEO_SUFFIXES
from toto.tokenize.sources.source_table import SourceTable
from toto.tokenize.sources.tars import list_media

REPLACEMENT = "replacement"  # cvdf's folder of re-encoded copies, without splits
_Timed = tuple[int | None, int | None, File]  # start and end in seconds, where the name has them


def read(config: DatasetConfig) -> Listing:
    """All listed clips of the chosen splits; keys are `<split>/<id>_<start>_<end>` in every layout.

    `labels` has youtube_id, time_start and time_end (seconds) beside the columns of every reader.
    UserError when root or lists are not there, or no listed clip is.
    """
    chosen = base.chosen_splits(config, SPLITS)
    files, ignored = list_media(config, VIDEO_SUFFIXES)
    lists = choose_lists(config)
    clips, classes = read_clips(lists, ignored)
    found = _find(clips, files)
    _count_left_out(files, clips, found, ignored)
    label = {name: index for index, name in classes.items()}
    wanted = {key: clip for key, clip in clips.items() if clip.split in chosen}
    sources = SourceTable.of(_source(key, clip, found.get(key), label, config) for key, clip in wanted.items())
    _check_any(config, sources, lists, chosen)
    sources.sort(SPLITS)
    tables = {"labels": _labels(sources, wanted, classes), "classes": base.classes_table(classes)}
    numbered = any(clip.label is not None for clip in clips.values())
    return Listing(sources, tables, dict(ignored), numbered, _warnings(config, lists, chosen, files))


class _Shelf:
    """The files on disk by split and YouTube id."""

    def __init__(self, files: Sequence[File]) -> None:
        self._files: dict[tuple[str | None, str], list[_Timed]] = defaultdict(list)
        for file in sorted(files, key=lambda file: (len(file.parts), file.key)):
            parsed = parse_stem(file.parts[-1])
            if parsed is not None:
                youtube_id, start, end = parsed
                self._files[_place(_folder(file)), youtube_id].append((start, end, file))

    def find(self, clip: Clip, is_only: bool) -> File | None:
        """The file with the clip's times; one without times if the split has no other clip of that video."""
        for place in (REPLACEMENT, clip.split, None):
            candidates = self._files.get((place, clip.youtube_id), ())
            for start, end, file in candidates:
                if (start, end) == (clip.start_s, clip.end_s):
                    return file
            for start, _, file in candidates:
                if is_only and (start is None or clip.start_s is None):
                    return file
        return None


def _find(clips: Mapping[str, Clip], files: Sequence[File]) -> dict[str, File]:
    shelf = _Shelf(files)
    count = Counter((clip.split, clip.youtube_id) for clip in clips.values())
    pairs = ((key, shelf.find(c, count[c.split, c.youtube_id] == 1)) for key, c in clips.items())
    return {key: file for key, file in pairs if file is not None}


def _folder(file: File) -> str:
    return file.key.rpartition("/")[0]


def _place(folder: str) -> str | None:
    """The split whose videos a folder has; None where its name does not say."""
    folders = folder.split("/")
    if any(folder.startswith(REPLACEMENT) for folder in folders):
        return REPLACEMENT
    return next((split for folder in folders if (split := split_of(folder))), None)


def _count_left_out(
    files: Sequence[File], clips: Mapping[str, Clip], found: Mapping[str, File], ignored: Counter[str]
) -> None:
    used = {file.key for file in found.values()}
    left = [file for file in files if file.key not in used]
    stems = {clip.stem for clip in clips.values()} if left else set()
    for file in left:
        ignored["(another copy of a listed clip)" if stem(file) in stems else UNLISTED] += 1


def _source(key: str, clip: Clip, file: File | None, labels: Mapping[str, int], config: DatasetConfig) -> Source:
    label = clip.label if clip.label is not None or clip.name is None else labels[clip.name]
    return listed_source(config, key, file, clip.split, label, ".mp4")


def _check_any(
    config: DatasetConfig, sources: Sequence[Source], lists: Mapping[str, str], chosen: Sequence[str]
) -> None:
    asked = [split for split in config.split if split not in lists]
    if asked or not sources:
        splits = asked or chosen
        raise UserError(
            f"datasets.{config.name}.split: no official list has clips of {', '.join(splits)}"
            f"\nput {splits[0]}.csv beside the other lists, or choose another split"
        )
    check_found(config, sources, "clip")


def _warnings(
    config: DatasetConfig, lists: Mapping[str, str], chosen: Sequence[str], files: Sequence[File]
) -> tuple[str, ...]:
    """Of a chosen split whose list is not there; many have no videos of `test`, and need no list of them."""
    missing, other = [split for split in chosen if split not in lists], next(iter(lists.values()))
    if TEST in missing and TEST not in map(_place, {_folder(file) for file in files}):
        missing.remove(TEST)
    names = [f"{split}.csv" for split in missing]
    return (absent(config, these_splits(missing), names, "its videos are left out", other),) if missing else ()


def _labels(sources: SourceTable, clips: Mapping[str, Clip], classes: Mapping[int, str]) -> pa.Table:
    table = base.labels_table(sources, classes)
    listed = [clips[key] for key in sources.keys.to_pylist()]
    table = table.append_column("youtube_id", pa.array([clip.youtube_id for clip in listed], pa.string()))
    table = table.append_column("time_start", pa.array([clip.start_s for clip in listed], pa.int32()))
    return table.append_column("time_end", pa.array([clip.end_s for clip in listed], pa.int32()))
