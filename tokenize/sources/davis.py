"""DAVIS-2017: a folder of pictures for each sequence, an indexed PNG for each frame that has a mask.

    JPEGImages/480p/<sequence>/00000.jpg     Annotations/480p/<sequence>/00000.png     ImageSets/2017/{train,val,…}.txt

A sequence is one source, its name the key. Sequences of test-dev have the mask of their first frame only. The 2016
edition (lists of pairs, grey masks of 0 and 255) is read too.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from toto.affinity import cores
from toto.config import DatasetConfig
from toto.config_layers import unknown
from toto.errors import UsageError
from toto.plain import counted
from toto.tokenize.frames_folder import PREFIX
from toto.tokenize.sources import base
from toto.tokenize.sources.base import MISSING_SIZE, Listing, Source
from toto.tokenize.sources.files import File, list_files, root_error
from toto.tokenize.sources.listed import absent, lists_error, these_splits
from toto.tokenize.sources.lists import find_lists, read_lines
from toto.tokenize.sources.masks import MASKS, Mask, read_mask
from toto.tokenize.sources.names import IMAGE_SUFFIXES

TESTS = ("test-dev", "test-challenge")
SPLITS = ("train", "val", *TESTS)
LISTS = ("ImageSets/2017", "ImageSets/2016", "ImageSets/480p")
UNSUPERVISED_LISTS = ("ImageSets/2019", *LISTS)  # of its test splits
VARIANTS = {  # variant -> folder of pictures, folder of masks, folders of lists
    "480p": ("JPEGImages/480p", "Annotations/480p", LISTS),
    "Full-Resolution": ("JPEGImages/Full-Resolution", "Annotations/Full-Resolution", LISTS),
    "480p-unsupervised": ("JPEGImages/480p", "Annotations_unsupervised/480p", UNSUPERVISED_LISTS),
    "Full-Resolution-unsupervised": (
        "JPEGImages/Full-Resolution",
        "Annotations_unsupervised/Full-Resolution",
        UNSUPERVISED_LISTS,
    ),
}

Shelf = Mapping[str, Sequence[File]]  # sequence -> its files, by name


@dataclass(frozen=True)
class _Frame:
    """A picture of a sequence, by its number there, and the file of its mask."""

    source: str
    number: int
    name: str
    mask: File | None


def read(config: DatasetConfig) -> Listing:
    """Every sequence that the lists name; `masks` has a line for each frame of them.

    UsageError for a variant that is not known; UserError when there are no lists, or none of their sequences is here.
    """
    splits = base.chosen_splits(config, SPLITS)
    pictures_at, masks_at, folders = _variant(config)
    files, ignored = list_files(config, IMAGE_SUFFIXES)
    pictures, masks = _shelf(files, pictures_at), _shelf(files, masks_at)
    lists = _lists(config, folders, splits)
    listed = _listed(lists, ignored)
    unlisted = len(pictures.keys() - listed.keys())
    ignored["(sequence in no chosen list)"] += unlisted
    sources = [_source(config, name, split, pictures, pictures_at) for name, split in listed.items()]
    if all(source.size == MISSING_SIZE for source in sources):
        raise root_error(config, f"of {counted(len(sources), 'sequence')} in the lists, none is in {pictures_at}")
    sources = base.in_order(sources, SPLITS)
    frames = [frame for source in sources for frame in _frames(source.key, pictures, masks, ignored)]
    tables = {"masks": _mask_table(frames, ignored)}
    return Listing(sources, tables, dict(+ignored), warnings=_warnings(config, lists, splits, unlisted))


def _variant(config: DatasetConfig) -> tuple[str, str, Sequence[str]]:
    variant = config.variant or "480p"
    if variant not in VARIANTS:
        raise UsageError(f"datasets.{config.name}.variant: {unknown('variant', variant, VARIANTS)}")
    return VARIANTS[variant]


def _shelf(files: Sequence[File], folder: str) -> Shelf:
    """The files directly in the sequences' folders under `folder`, sorted by name as decoding sorts them."""
    depth = len(folder.split("/"))
    found: dict[str, list[File]] = defaultdict(list)
    for file in files:
        parts = file.parts
        if len(parts) == depth + 2 and file.key.startswith(f"{folder}/"):
            found[parts[depth]].append(file)
    return {name: sorted(of_sequence, key=lambda file: file.parts[-1]) for name, of_sequence in found.items()}


def _lists(config: DatasetConfig, folders: Sequence[str], splits: Sequence[str]) -> dict[str, str]:
    """Split -> its list, of those that are there; a split that the run asks for by name must have one."""
    named: dict[str, str] = {}
    for uri in find_lists(config, (".txt",), folders):
        named.setdefault(uri.rpartition("/")[2], uri)
    lists = {split: named[f"{split}.txt"] for split in splits if f"{split}.txt" in named}
    missing = [split for split in splits if split not in lists]
    if not lists or set(missing) & set(config.split):
        raise lists_error(config, f"no list of sequences {LISTS[0]}/{missing[0]}.txt")
    return lists


def _warnings(config: DatasetConfig, lists: Mapping[str, str], splits: Sequence[str], unlisted: int) -> tuple[str, ...]:
    """Of splits whose lists are not there. The tests are downloads of their own, which many have not: they count
    where train and val have lists, and there are sequences in none."""
    without = [split for split in splits if split not in lists]
    missing = [split for split in without if split not in TESTS] or (without if unlisted else [])
    names = [f"{LISTS[0]}/{split}.txt" for split in missing]
    return (absent(config, these_splits(missing), names, "its sequences are left out"),) if missing else ()


def _listed(lists: Mapping[str, str], ignored: Counter[str]) -> dict[str, str]:
    """Sequence -> split."""
    found: dict[str, str] = {}
    for split, uri in lists.items():
        names = [_sequence(line) for line in read_lines(uri) if line.strip()]
        ignored["(line of a list that names no sequence)"] += names.count(None)
        for name in dict.fromkeys(name for name in names if name is not None):
            if found.setdefault(name, split) != split:
                ignored["(sequence in two lists)"] += 1
    return found


def _sequence(line: str) -> str | None:
    """The sequence that a line names, `bear` or the 2016 edition's `/JPEGImages/480p/bear/00000.jpg /Annotations/…`;
    None for one that could lead elsewhere."""
    parts = line.split()[0].strip("/").split("/")
    name = parts[-2] if len(parts) > 1 else parts[0]
    return None if name in ("", ".", "..") or "\\" in name else name


def _source(config: DatasetConfig, name: str, split: str, pictures: Shelf, folder: str) -> Source:
    files = pictures.get(name, ())
    if not files:
        return Source(name, f"{PREFIX}{config.root.rstrip('/')}/{folder}/{name}", "video", split, None, MISSING_SIZE)
    place = files[0].uri.rpartition("/")[0]
    size, mtime_us = sum(max(0, file.size) for file in files), max(file.mtime_us for file in files)
    return Source(name, f"{PREFIX}{place}", "video", split, None, size, mtime_us)


def _frames(sequence: str, pictures: Shelf, masks: Shelf, ignored: Counter[str]) -> Iterator[_Frame]:
    of_name = {_stem(file): file for file in masks.get(sequence, ())}
    for number, file in enumerate(pictures.get(sequence, ())):
        yield _Frame(sequence, number, _stem(file), of_name.pop(_stem(file), None))
    ignored["(mask without a frame)"] += len(of_name)


def _mask_table(frames: Sequence[_Frame], ignored: Counter[str]) -> pa.Table:
    with ThreadPoolExecutor(cores()) as pool:  # Pillow and zlib let go of Python's lock
        found = list(pool.map(_read, frames))
    ignored["(mask that is no readable indexed PNG)"] += sum(
        frame.mask is not None and mask is None for frame, mask in zip(frames, found, strict=True)
    )
    masks = [mask or Mask() for mask in found]
    columns = {
        "source": [frame.source for frame in frames],
        "frame": [frame.number for frame in frames],
        "name": [frame.name for frame in frames],
        **{name: [getattr(mask, name) for mask in masks] for name in MASKS.names[3:]},
    }
    return pa.table(columns, schema=MASKS)


def _read(frame: _Frame) -> Mask | None:
    if frame.mask is None or frame.mask.size == MISSING_SIZE:  # no mask, or a link that leads nowhere
        return None
    return read_mask(frame.mask.uri)


def _stem(file: File) -> str:
    return file.parts[-1].rpartition(".")[0]
