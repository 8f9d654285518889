"""ImageNet's development kit, ILSVRC2012_devkit_t12.tar.gz or what was unpacked from it: classes and their ids.

    data/meta.mat                                   synsets: ILSVRC2012_ID, WNID, words, …, num_children
    data/ILSVRC2012_validation_ground_truth.txt     line i: the ILSVRC2012_ID of validation image i

An ILSVRC2012_ID (1…1000) is not the place among the sorted WordNet ids: not one of the 1000 agrees.
"""

import gzip
import io
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.sources.lists import find_lists, read_within
from toto.tokenize.sources.mat_file import load_variable
from toto.tokenize.sources.names import shown
from toto.tokenize.sources.tar_headers import tar_entries

ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
META = "meta.mat"
WNID = re.compile(r"n\d{8}")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
FOLDERS = ("ILSVRC2012_devkit_t12/data", "data")  # beside or under where lists are looked for
MAX_BYTES = 64 * 2**20  # of the archive, and of what is in it; the official one has 2.5 MB, 8 MB unpacked


@dataclass(frozen=True)
class Devkit:
    """What the kit says."""

    where: str  # of meta.mat or of the archive, for messages
    classes: dict[int, tuple[str, str]]  # ILSVRC2012_ID -> WordNet id, words
    ground_truth: bytes | None  # as the archive has it; unpacked kits have it as a list of its own


def read_devkit(config: DatasetConfig) -> Devkit | None:
    """The kit that lies where lists are looked for; None when there is none. UserError when it is damaged."""
    for uri in find_lists(config, (".gz", ".mat"), FOLDERS):
        name = uri.rsplit("/", 1)[-1]
        if name in (ARCHIVE, META):
            files = _unpacked(uri) if name == ARCHIVE else {META: _bounded(uri)}
            return Devkit(uri, _classes(uri, files[META]), files.get(GROUND_TRUTH))
    return None


def _unpacked(uri: str) -> dict[str, bytes]:
    """The two files that count, out of the archive: in memory, nothing is extracted."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(_bounded(uri))) as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(uri, "it does not unpack") from error
    if len(data) > MAX_BYTES:
        raise _damaged(uri, f"more than {MAX_BYTES // 2**20} MiB unpacked")
    entries = tar_entries(lambda at, size: data[at : at + size], 0, len(data), Counter())
    names = {entry.name.rsplit("/", 1)[-1]: entry for entry in entries}
    if META not in names:
        raise _damaged(uri, f"no {META} in it")
    return {n: data[e.offset : e.offset + e.size] for n, e in names.items() if n in (META, GROUND_TRUTH)}


def _bounded(uri: str) -> bytes:
    data = read_within(uri, MAX_BYTES)
    if data is None:
        raise _damaged(uri, f"larger than {MAX_BYTES // 2**20} MiB")
    return data


def _classes(uri: str, mat: bytes) -> dict[int, tuple[str, str]]:
    """The synsets without children: the others are groups of them."""
    try:
        synsets = load_variable(mat, "synsets").ravel()
        leaves = synsets[[_item(count) == 0 for count in synsets["num_children"]]]
        columns = (leaves["ILSVRC2012_ID"], leaves["WNID"], leaves["words"])
        classes = {int(_item(i)): (str(_item(w)), str(_item(words))) for i, w, words in zip(*columns, strict=True)}
        if not all(WNID.fullmatch(wnid) for wnid, _ in classes.values()):
            raise ValueError("a WNID that is none")
        return classes
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _damaged(uri, f"its {META} is not ImageNet's ({error})") from error


def _item(cell: Any) -> Any:
    """The one value in a MATLAB cell."""
    return np.asarray(cell).item()


def _damaged(uri: str, problem: str) -> UserError:
    return UserError(f"{shown(uri)}: {problem}\nget {ARCHIVE} from https://image-net.org/download-images.php")
