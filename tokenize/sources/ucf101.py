"""UCF101: 13,320 clips of 101 actions, in three official folds (`fold: 1`, `2` or `3`) of train and test.

    UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi
    ucfTrainTestlist/classInd.txt        1 ApplyEyeMakeup
    ucfTrainTestlist/trainlist01.txt     ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
    ucfTrainTestlist/testlist01.txt      ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi

Labels are those of classInd.txt less one. Folders are written otherwise than files in places
(`HandstandPushups/v_HandStandPushups_…`), so names are compared without case.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.sources.base import Listing
from toto.tokenize.sources.folds import FOLDS, TEST, TRAIN, Clip, absent_lists, fold_listing, fold_of
from toto.tokenize.sources.listed import is_name, no_lists
from toto.tokenize.sources.lists import find_lists, read_lines
from toto.tokenize.sources.names import VIDEO_SUFFIXES, escape, shown
from toto.tokenize.sources.tars import list_media

_FOLDERS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist")
_CLASSES = "classInd.txt"
_LIST = {TRAIN: "trainlist{:02d}.txt", TEST: "testlist{:02d}.txt"}
_GROUP = re.compile(r"_g(\d{1,4})_c\d{1,4}$")  # clips of one group are cut from one recording


def read(config: DatasetConfig) -> Listing:
    """The clips of one fold; keys are `<class>/v_<class>_g08_c01`, `group` in the table `folds` is the g08.

    UserError when root or lists are not there, or a list does not agree with classInd.txt.
    """
    files, ignored = list_media(config, VIDEO_SUFFIXES)
    lists = {uri.rsplit("/", 1)[-1]: uri for uri in reversed(find_lists(config, (".txt",), _FOLDERS))}
    mine = [_LIST[split].format(fold_of(config)) for split in config.split or _LIST if split in _LIST]
    if any(name not in lists for name in (_CLASSES, *mine)):
        raise no_lists(config, ", ".join(name for name in (_CLASSES, *mine) if name not in lists))
    classes = _read_classes(lists[_CLASSES])
    label = {name.casefold(): number for number, name in classes.items()}
    clips: dict[str, Clip] = {}
    for fold in FOLDS:
        for split, name in _LIST.items():
            if (uri := lists.get(name.format(fold))) is not None:
                _read_list(uri, fold, split, label, clips)
    others = [fold for fold in FOLDS if fold != fold_of(config)]
    missing = {fold: [n for name in _LIST.values() if (n := name.format(fold)) not in lists] for fold in others}
    listing = fold_listing(config, clips, classes, files, ignored)
    return replace(listing, numbered=True, warnings=absent_lists(config, missing))


def _read_classes(uri: str) -> dict[int, str]:
    classes = {}
    for line in filter(str.strip, read_lines(uri)):
        number, _, name = line.strip().partition(" ")
        if not number.isdecimal() or not is_name(name):
            raise UserError(f"{shown(uri)}: {line[:60]!r}: expected lines such as '1 ApplyEyeMakeup'; get it again")
        classes[int(number) - 1] = name
    return classes


def _read_list(uri: str, fold: int, split: str, label: Mapping[str, int], clips: dict[str, Clip]) -> None:
    for number, line in enumerate(read_lines(uri), 1):
        path, *rest = line.split() or [""]
        folder, _, name = path.partition("/")
        known = label.get(folder.casefold())
        if not path:
            continue
        if known is None or not is_name(name) or rest not in ([], [str(known + 1)]):
            raise UserError(
                f"{shown(uri)}: line {number}: {line[:80]!r} is no clip of a class of {_CLASSES} with that number"
                "\nget both lists again, from one place"
            )
        key = escape(f"{folder}/{name.rpartition('.')[0] or name}")
        group = _GROUP.search(key)
        clip = clips.setdefault(key, Clip(known, int(group[1]) if group else None))
        clip.folds[fold] = split
