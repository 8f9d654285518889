"""The classes of ImageNet's flat validation images: number of the image -> WordNet id, from any list that is around.

    LOC_val_solution.csv                             Kaggle's: ILSVRC2012_val_00048981,n03995372 85 1 499 272
    imagenet_2012_validation_synset_labels.txt       line i: the WordNet id of image i
    ILSVRC2012_validation_ground_truth.txt           the development kit's: line i: the ILSVRC2012_ID of image i
    val.txt                                          ILSVRC2012_val_00000001.JPEG 65: index among sorted WordNet ids

Numbers mean two things in files of the same name, so each form is checked for what only it can be, or refused.
"""

import re
from collections.abc import Mapping, Sequence

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.sources.imagenet_devkit import ARCHIVE, FOLDERS, GROUND_TRUTH, Devkit
from toto.tokenize.sources.lists import find_lists, read_lines
from toto.tokenize.sources.names import shown

LISTS = ("LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt", GROUND_TRUTH, "val.txt")
IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})")
IMAGES = 50_000  # 50 of each class
_FIRST_IDS = (490, 361, 171)  # ILSVRC2012_IDs of images 1, 2 and 3
_NAMED = re.compile(r"ILSVRC2012_val_(\d{8})(?:\.JPEG)?[\s,]+(n\d{8}|\d{1,4})\b.*")
_BARE = re.compile(r"\s*(n\d{8}|\d{1,4})\s*")
_KAGGLE_HEAD = "ImageId,"


def read_truth(config: DatasetConfig, wnids: Sequence[str], devkit: Devkit | None) -> dict[int, str]:
    """Number of a validation image -> WordNet id; empty when there is no list.

    `wnids`: the sorted WordNet ids, where they are known. UserError for a list that may mean something else.
    """
    found = {uri.rsplit("/", 1)[-1]: uri for uri in reversed(find_lists(config, (".txt", ".csv"), FOLDERS))}
    for name in LISTS:
        if name in found:
            return _parse(read_lines(found[name]), found[name], wnids, devkit)
    if devkit is not None and devkit.ground_truth is not None:
        return _parse(devkit.ground_truth.decode("ascii", "replace").split("\n"), devkit.where, wnids, devkit)
    return {}


def _parse(lines: Sequence[str], where: str, wnids: Sequence[str], devkit: Devkit | None) -> dict[int, str]:
    lines = [line for line in lines if line.strip() and not line.startswith(_KAGGLE_HEAD)]
    named = [_NAMED.fullmatch(line) for line in lines]
    bare = [_BARE.fullmatch(line) for line in lines]
    if lines and all(named):
        words = {int(match[1]): match[2] for match in named if match}
        is_complete = len(words) == len(lines)
    elif lines and all(bare):
        words = {number: match[1] for number, match in enumerate(bare, 1) if match}
        is_complete = True
    else:
        words, is_complete = {}, False
    if not is_complete:
        raise _refused(where, f"begins {lines[0][:60]!r}, or names an image twice" if lines else "is empty")
    if all(word.startswith("n") for word in words.values()):
        return words
    if any(word.startswith("n") for word in words.values()):
        raise _refused(where, "has WordNet ids in some lines and numbers in others")
    numbers = {image: int(word) for image, word in words.items()}
    return _by_index(numbers, where, wnids) if all(named) else _by_id(numbers, where, devkit)


def _by_id(numbers: Mapping[int, int], where: str, devkit: Devkit | None) -> dict[int, str]:
    """The development kit's list: ILSVRC2012_IDs."""
    if devkit is None:
        raise _refused(where, "holds ILSVRC2012_IDs, and what they mean stands in the kit's meta.mat")
    strange = sorted({*numbers.values()} - devkit.classes.keys())
    first = tuple(numbers.get(image) for image in (1, 2, 3))
    if strange or (len(numbers) == IMAGES and first != _FIRST_IDS):
        what = f"the number {strange[0]}" if strange else f"{first} for the first images"
        raise _refused(where, f"has {what}, so its numbers are no ILSVRC2012_IDs")
    return {image: devkit.classes[number][0] for image, number in numbers.items()}


def _by_index(numbers: Mapping[int, int], where: str, wnids: Sequence[str]) -> dict[int, str]:
    """A list with names of images: indices from 0 on among the sorted WordNet ids, if that is sure."""
    as_ids = [image for image, number in zip((1, 2, 3), _FIRST_IDS, strict=True) if numbers.get(image) == number - 1]
    if min(numbers.values()) != 0 or len(as_ids) == len(_FIRST_IDS):
        raise _refused(where, "does not count classes from 0 in the order of their WordNet ids")
    if max(numbers.values()) >= len(wnids):
        raise _refused(where, f"names class {max(numbers.values())}, the known ones are 0 to {len(wnids) - 1}")
    return {image: wnids[number] for image, number in numbers.items()}


def _refused(where: str, problem: str) -> UserError:
    return UserError(
        f"{shown(where)}: {problem}\n"
        f"take {ARCHIVE} from https://image-net.org/download-images.php, or Kaggle's LOC_val_solution.csv"
    )
