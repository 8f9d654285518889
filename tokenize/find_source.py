"""From a source's key back to where it is read: the way for sources that are no plain file with the key's name.

    key ─▶ is a folder of it a tar? in that one ─▶ a video of Ego4D's, by its name ─▶ in any tar, by its name
                                                                                          └▶ path or part:…:tar

A dataset keeps its sources' keys, not its layout's files: so this looks for names, and gives nothing where none fits.
"""

import os
from functools import lru_cache
from threading import Event

import pyarrow as pa
import pyarrow.compute as pc

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.clip import SourceError
from toto.tokenize.part import Part
from toto.tokenize.sources.ego4d_sta import VARIANTS, videos_by_uid
from toto.tokenize.sources.files import File
from toto.tokenize.sources.names import MEDIA_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from toto.tokenize.sources.tar_index import TAR, index_of
from toto.tokenize.sources.tars import Found
from toto.tokenize.sources.tars import find as list_root
from toto.tokenize.transient import TransientError

MOST_ARCHIVES = 64  # tars whose names say nothing of a key are looked into only where they are as few


def find(root: str, key: str) -> str | None:
    """A path or URI that `toto.media.frames` reads, of the source with this key under a local folder; None where there
    is none.

    Key and member agree in the last part of their names, at least up to its first dot; of several that do, the one
    with most folders in common. Raises UserError for a tar that cannot be read.
    """
    try:
        found = _listed(os.path.abspath(root))
    except UserError:
        return None
    its_tars = [tar for tar in found.tars if key.startswith(_folder(tar))]
    if its_tars:
        return _in_its_tar(its_tars, key)
    return _of_ego4d(found, key) or _in_some_tar(found, key)


@lru_cache(maxsize=4)
def _listed(root: str) -> Found:
    return list_root(DatasetConfig(name="sources", layout="folder", root=root), VIDEO_SUFFIXES)


def _folder(tar: File) -> str:
    """What the keys of its members begin with, where a tar stands for a folder."""
    return tar.key[: -len(TAR)] + "/"


def _in_its_tar(tars: list[File], key: str) -> str | None:
    """`a/00001/x` in `a/00001.tar`."""
    hits = [_best(tar, key.removeprefix(_folder(tar))) for tar in tars]
    return max(hits, default=(0, ""))[1] or None


def _of_ego4d(found: Found, key: str) -> str | None:
    """`val/<uid>` in `full_scale/<uid>.mp4`."""
    name = key.rpartition("/")[2]
    shelves = (videos_by_uid(found.files, variant) for variant in VARIANTS)
    return next((files[name].uri for files in shelves if name in files), None)


def _in_some_tar(found: Found, key: str) -> str | None:
    """`train/n01/n01_1.JPEG` in `ILSVRC2012_img_train.tar`."""
    if len(found.tars) > MOST_ARCHIVES:
        return None
    hits = [_best(tar, key) for tar in found.tars]
    return max(hits, default=(0, ""))[1] or None


def _best(tar: File, key: str) -> tuple[int, str]:
    """(folders in common with the key, URI) of the member that fits best; "" where none does."""
    table, last = _members(tar), key.rpartition("/")[2]
    names = table["name"]
    near = table.filter(pc.or_(pc.ends_with(names, last), pc.match_substring(names, f"{last}.")))
    best = (-1, "")
    for row in near.to_pylist():
        folder, _, base = row["name"].rpartition("/")
        if suffix_of(base) in MEDIA_SUFFIXES and last in (base, base.split(".")[0], base.rpartition(".")[0]):
            part = Part(row["offset"], row["size"], row["head"], row["head_hash"], tar.uri)
            best = max(best, (_in_common(folder, key.rpartition("/")[0]), str(part)), key=lambda hit: hit[0])
    return best


def _in_common(one: str, other: str) -> int:
    """How many folders two paths end with alike."""
    pairs = zip(reversed(one.split("/")), reversed(other.split("/")), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if not a or a != b), min(one.count("/"), other.count("/")) + 1)


@lru_cache(maxsize=MOST_ARCHIVES)
def _members(tar: File) -> pa.Table:
    try:
        return index_of(tar, Event()).table
    except (SourceError, TransientError) as error:
        raise UserError(f"{tar.uri}: cannot be read ({error})") from error
