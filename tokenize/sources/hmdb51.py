"""HMDB51: 6,766 clips of 51 actions, in three official folds (`fold: 1`, `2` or `3`) of train, test and not used.

    brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi        names hold ! ; & ( ) [ ] too
    brush_hair_test_split1.txt        April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1        (0 not used, 1 train, 2 test)

or all lists in one CSV: `video_id,label,split1,split2,split3`, where a label is `brush_hair_test`. Labels are indices
into the sorted names of the classes that the lists name, and of those that have a folder here without a list: so no
label is another one where a list is missing.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace

from toto.config import DatasetConfig
from toto.tokenize.sources.base import Listing
from toto.tokenize.sources.csv_table import find_columns, read_rows
from toto.tokenize.sources.files import File
from toto.tokenize.sources.folds import FOLDS, TEST, TRAIN, Clip, absent_lists, fold_listing, fold_of
from toto.tokenize.sources.listed import is_name, no_lists, stem
from toto.tokenize.sources.lists import find_lists, read_lines
from toto.tokenize.sources.names import VIDEO_SUFFIXES, escape
from toto.tokenize.sources.tars import list_media

_FOLDERS = ("testTrainMulti_7030_splits", "test_train_splits", "test_train_splits/testTrainMulti_7030_splits", "splits")
_LIST = re.compile(r"(?P<name>.+)_test_split(?P<fold>[123])\.txt")
_COLUMNS = {
    "file": ("video_id", "video", "file"),
    "label": ("label", "class"),
    **{f"split{fold}": (f"split{fold}",) for fold in FOLDS},
}
_USE = {"0": None, "1": TRAIN, "2": TEST}

Line = tuple[str, str, int, str]  # class, file, fold, use


def read(config: DatasetConfig) -> Listing:
    """The clips of one fold; keys are `<class>/<name without .avi>`. UserError when root or lists are not there."""
    files, ignored = list_media(config, VIDEO_SUFFIXES)
    lines = list(_text_lists(config)) or list(_csv_lists(config))
    fold = fold_of(config)
    if not any(line[2] == fold for line in lines):
        raise no_lists(config, f"<class>_test_split{fold}.txt, or a CSV of video_id,label,split1,split2,split3")
    unlisted = _unlisted_classes(lines, files)
    clips, classes = _clips(lines, unlisted, ignored)
    listing = fold_listing(config, clips, classes, files, ignored)
    there, names = {(name, fold) for name, _, fold, _ in lines}, sorted({line[0] for line in lines} | unlisted)
    missing = {f: [f"{name}_test_split{f}.txt" for name in names if (name, f) not in there] for f in FOLDS}
    return replace(listing, warnings=absent_lists(config, missing))


def _unlisted_classes(lines: Sequence[Line], files: Sequence[File]) -> set[str]:
    """Folders of videos that no list names and whose names have the folder's in them, as all names of clips do."""
    named, listed = {line[0] for line in lines}, {line[1].rpartition(".")[0].casefold() for line in lines}
    pairs = {(file.parts[-2], stem(file)) for file in files if len(file.parts) > 1}
    return {
        folder
        for folder, name in pairs
        if folder not in named and name.casefold() not in listed and f"_{folder}_" in f"_{name}_"
    }


def _clips(lines: Sequence[Line], unlisted: Set[str], ignored: Counter[str]) -> tuple[dict[str, Clip], dict[int, str]]:
    good = [line for line in lines if is_name(line[0]) and is_name(line[1]) and line[3] in _USE]
    classes = dict(enumerate(sorted({name for name, _, _, _ in good} | unlisted)))
    label = {name: number for number, name in classes.items()}
    clips: dict[str, Clip] = {}
    for name, file, fold, use in good:
        clip = clips.setdefault(escape(f"{name}/{file.rpartition('.')[0] or file}"), Clip(label[name]))
        if (split := _USE[use]) is not None:
            clip.folds[fold] = split
    if bad := len(lines) - len(good):
        ignored["(line of a list without a clip)"] += bad
    return clips, classes


def _text_lists(config: DatasetConfig) -> Iterator[Line]:
    for uri in find_lists(config, (".txt",), _FOLDERS):
        match = _LIST.fullmatch(uri.rsplit("/", 1)[-1])
        if match:
            for line in filter(str.strip, read_lines(uri)):
                file, _, use = line.strip().rpartition(" ")
                yield match["name"], file.strip(), int(match["fold"]), use


def _csv_lists(config: DatasetConfig) -> Iterator[Line]:
    for uri in find_lists(config, (".csv",), _FOLDERS):
        lines = read_lines(uri)
        columns = find_columns(lines[0], _COLUMNS)
        if {"file", "label"} <= set(columns):
            for row in read_rows(uri, lines[1:], columns):
                name = row.get("label", "").removesuffix("_test")
                for fold in FOLDS:
                    yield name, row.get("file", ""), fold, row.get(f"split{fold}", "")
