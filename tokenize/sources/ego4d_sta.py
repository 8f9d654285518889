"""Ego4D's short-term anticipation: what will be touched next, where, how, and when? 16 frames before each moment.

    fho_sta_{train,val}.json, fho_sta_test_unannotated.json     in annotations/, v2/annotations/ or the root
    full_scale/<video uid>.mp4, or clips/<clip uid>.mp4         by `variant`; also without that folder, or in tars

A source is a video with moments; its row holds the frames of all its moments, each once. Keys are
`<split>/<video uid>` or `<split>/<clip uid>`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from toto.config import DatasetConfig
from toto.config_layers import unknown
from toto.errors import UsageError, UserError
from toto.plain import counted
from toto.tokenize.sources import base
from toto.tokenize.sources.base import MISSING_SIZE, Listing, Source
from toto.tokenize.sources.ego4d import above, variants_here
from toto.tokenize.sources.ego4d_lists import VERSIONS
from toto.tokenize.sources.ego4d_sta_file import SPLITS, Annotations, Moment, annotation_tables, parse
from toto.tokenize.sources.files import File, root_error
from toto.tokenize.sources.listed import absent, lists_error, these_splits
from toto.tokenize.sources.lists import find_lists, read_json
from toto.tokenize.sources.names import VIDEO_SUFFIXES, shown
from toto.tokenize.sources.tars import list_media

NAMES = {"train": "fho_sta_train.json", "val": "fho_sta_val.json", "test": "fho_sta_test_unannotated.json"}
VARIANTS = ("full_scale", "video_540ss", "clips")  # folders of Ego4D; `clips` counts frames in the clip


def read(config: DatasetConfig) -> Listing:
    """Every video that moments of the chosen splits are in; `moments`, `objects`, `nouns`, `verbs`.

    UsageError for a variant that is not known; UserError for annotations that are not there or not in the format, or
    when no video is there.
    """
    if config.variant is not None and config.variant not in VARIANTS:
        raise UsageError(f"datasets.{config.name}.variant: {unknown('variant', config.variant, VARIANTS)}")
    splits = base.chosen_splits(config, SPLITS)
    files, ignored = list_media(config, VIDEO_SUFFIXES)
    variant = config.variant or _variant(config, files)
    found = _annotation_files(config)
    annotations = _read_all(config, found, splits, in_clips=variant == "clips")
    shelf = videos_by_uid(files, variant)
    sources = list(_sources(config, annotations.moments, shelf, variant))
    if all(source.size == MISSING_SIZE for source in sources):
        raise _no_videos(config, len(sources), variant, variants_here(config, files))
    used = {source.uri for source in sources}
    ignored["(video without moments)"] += sum(file.uri not in used for file in files)
    tables, warnings = annotation_tables(annotations), _warnings(config, found, splits)
    return Listing(base.in_order(sources, SPLITS), tables, dict(+ignored), warnings=warnings)


def _variant(config: DatasetConfig, files: Sequence[File]) -> str:
    """The first of `VARIANTS` that has a folder here; videos directly at the root are taken as full_scale."""
    here = [] if any(len(file.parts) == 1 for file in files) else variants_here(config, files)
    return min(here, key=VARIANTS.index, default=VARIANTS[0])


def _no_videos(config: DatasetConfig, count: int, variant: str, here: Sequence[str]) -> UserError:
    problem = f"of {counted(count, 'video')} in the annotations, none is in {variant}/"
    if here and variant not in here:
        where = f"datasets.{config.name}"
        return UserError(
            f"{where}.root: {shown(config.root)}: {problem}\n"
            f"there is {', '.join(here)}: set {where}.variant to the one that you have"
        )
    return root_error(config, problem)


def _annotation_files(config: DatasetConfig) -> dict[str, str]:
    """Split -> its file, all from one place: beside the videos, else of the newest version in the download folder."""
    for place in (config, above(config)):
        for version in ("", *VERSIONS):
            named: dict[str, str] = {}
            for uri in find_lists(place, (".json",), (f"{version}/annotations",) if version else ()):
                named.setdefault(uri.rpartition("/")[2], uri)
            if found := {split: named[name] for split, name in NAMES.items() if name in named}:
                return found
    return {}


def _warnings(config: DatasetConfig, found: Mapping[str, str], splits: Sequence[str]) -> tuple[str, ...]:
    """Of chosen splits whose file is not there."""
    missing, other = [split for split in splits if split not in found], next(iter(found.values()))
    names = [NAMES[split] for split in missing]
    return (absent(config, these_splits(missing), names, "its videos are left out", other),) if missing else ()


def _read_all(config: DatasetConfig, found: Mapping[str, str], splits: Sequence[str], in_clips: bool) -> Annotations:
    """The moments of the splits whose files are there; a split that the run asks for by name must have one.

    Categories are taken from every file: a run over `test` alone must not lose their names.
    """
    missing = [split for split in splits if split not in found]
    if missing == list(splits) or set(missing) & set(config.split):
        places = "annotations/, v2/annotations/ or beside the videos" if config.annotations is None else "it"
        raise lists_error(config, f"no {NAMES[missing[0]]} in {places}")
    whole = Annotations([], {}, {})
    for split in found:
        where = shown(found[split])
        part = parse(read_json(found[split]), split, in_clips, where)
        for name, mine, theirs in (("noun", whole.nouns, part.nouns), ("verb", whole.verbs, part.verbs)):
            if mine and theirs and mine != theirs:
                raise UserError(f"{where}: other {name} categories than the files before it; take all of one version")
            mine.update(theirs)
        whole.moments.extend(part.moments if split in splits else ())
    return whole


def videos_by_uid(files: Sequence[File], variant: str) -> dict[str, File]:
    """Videos by uid: those in the variant's folder, wherever it lies, else those directly at the root."""
    inside = {_stem(file): file for file in files if variant in file.parts[:-1]}
    return {_stem(file): file for file in files if len(file.parts) == 1} | inside


def _stem(file: File) -> str:
    return file.parts[-1].rpartition(".")[0]


def _sources(
    config: DatasetConfig, moments: Sequence[Moment], shelf: Mapping[str, File], variant: str
) -> Iterator[Source]:
    frames: dict[tuple[str, str], set[int]] = defaultdict(set)
    for moment in moments:
        frames[moment.split, moment.video].update(moment.positions)
    for (split, uid), wanted in frames.items():
        key, file, positions = f"{split}/{uid}", shelf.get(uid), tuple(sorted(wanted))
        if file is None:
            expected = f"{config.root.rstrip('/')}/{variant}/{uid}.mp4"
            yield Source(key, expected, "video", split, None, MISSING_SIZE, moments=positions)
        else:
            yield Source(key, file.uri, "video", split, None, file.size, file.mtime_us, file.etag, positions)
