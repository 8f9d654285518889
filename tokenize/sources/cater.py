"""CATER: where is the golden snitch at the end, and what was done; of one set, which `variant` names.

    all_actions/videos/CATER_new_000012.avi        sets: all_actions, max2action, each with _cameramotion too
    all_actions/scenes/CATER_new_000012.json       where everything is at every frame, see cater_scenes
    all_actions/lists/localize/train.txt           labels, see cater_lists

A source is a video that some list names; its label is its cell in localize's 6×6 grid. All sets use the same file
names, so a root with several needs `variant`; the root may be a set's own folder too.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from toto.config import DatasetConfig
from toto.config_layers import unknown
from toto.errors import UsageError
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing
from toto.tokenize.sources.cater_lists import SPLITS, read_lists
from toto.tokenize.sources.cater_scenes import HALF, cell, read_tracks, snitch_table
from toto.tokenize.sources.files import File
from toto.tokenize.sources.listed import Shelf, check_found, listed_source, stem
from toto.tokenize.sources.names import VIDEO_SUFFIXES, shown, suffix_of
from toto.tokenize.sources.tars import list_media

SETS = ("all_actions", "all_actions_cameramotion", "max2action", "max2action_cameramotion")
CLASSES = {row * 2 * HALF + x: f"column {x}, row {row}" for row in range(2 * HALF) for x in range(2 * HALF)}
_SCENE = ".json"


def read(config: DatasetConfig) -> Listing:
    """The listed videos of one set; keys are names without suffix, `CATER_new_000012`.

    Tables: `labels`, `classes`; `lists` (every task's labels as they stand in its list); `snitch` (its place and cell
    at every frame, where there are scenes). Labels at the table's very edge are put back inside the grid and counted.
    UserError when root or lists are not there; UsageError for a set that is not there, or when several are.
    """
    chosen = base.chosen_splits(config, SPLITS)
    found, ignored = list_media(config, VIDEO_SUFFIXES | {_SCENE})
    config, found = _set_alone(config, found, ignored)
    lists = read_lists(config, ignored)
    splits = lists.splits(ignored)
    shelf = Shelf([file for file in found if suffix_of(file.key) != _SCENE], stem)
    files = {video: shelf.take(video, f"videos/{video}.avi") for video in splits}
    shelf.count_left(ignored)
    wanted = [video for video, split in splits.items() if split in chosen]
    tracks = _tracks([file for file in found if suffix_of(file.key) == _SCENE], wanted, ignored)
    labels = _labels(lists.cells(), wanted, tracks, ignored)
    sources = [listed_source(config, video, files[video], splits[video], labels[video], ".avi") for video in wanted]
    check_found(config, sources)
    sources = base.in_order(sources, SPLITS)
    tables = {
        "labels": base.labels_table(sources, CLASSES),
        "classes": base.classes_table(CLASSES),
        "lists": lists.table(wanted),
        **({"snitch": snitch_table(tracks)} if tracks else {}),
    }
    return Listing(sources, tables, dict(+ignored), warnings=lists.warnings(config, chosen))


def _set_alone(config: DatasetConfig, files: list[File], ignored: Counter[str]) -> tuple[DatasetConfig, list[File]]:
    """The configuration as if the set's folder were the root, and the files in it by their names there."""
    name = _set(config, files)
    if name is None:
        return config, files
    ignored["(of another set)"] += sum(file.parts[0] != name for file in files)
    mine = [replace(file, key=file.key.removeprefix(f"{name}/")) for file in files if file.parts[0] == name]
    return replace(config, root=f"{config.root.rstrip('/')}/{name}"), mine


def _set(config: DatasetConfig, files: Sequence[File]) -> str | None:
    """The set's folder under the root; None when the root itself is a set's folder."""
    inside = sorted({file.parts[0] for file in files} & set(SETS))
    own = config.root.rstrip("/").rsplit("/", 1)[-1]
    here = inside or [name for name in SETS if name == own]
    where = f"datasets.{config.name}.variant"
    if config.variant is not None and config.variant not in SETS:
        raise UsageError(f"{where}: {unknown('set', config.variant, SETS)}")
    if config.variant is not None and here and config.variant not in here:
        raise UsageError(f"{where}: {config.variant} is not in {shown(config.root)}; there is {', '.join(here)}")
    if config.variant is None and len(here) > 1:
        raise UsageError(f"{where}: {shown(config.root)} has {', '.join(here)}, with the same names; choose one")
    return (config.variant or inside[0]) if inside else None


def _tracks(scenes: Sequence[File], videos: Sequence[str], ignored: Counter[str]) -> dict[str, np.ndarray]:
    """Video -> places of the snitch, of those that have a scene."""
    shelf = Shelf(scenes, stem)
    pairs = [(video, scene) for video in videos if (scene := shelf.take(video, f"scenes/{video}{_SCENE}"))]
    if scenes and (without := len(videos) - len(pairs)):
        ignored["(video without a scene)"] += without
    tracks = read_tracks([scene for _, scene in pairs], ignored)
    return {video: track for (video, _), track in zip(pairs, tracks, strict=True) if track is not None}


def _labels(
    listed: Mapping[str, int], videos: Sequence[str], tracks: Mapping[str, np.ndarray], ignored: Counter[str]
) -> dict[str, int | None]:
    """Labels as listed, but for those that the official formula puts outside the grid, or into its next row."""
    labels: dict[str, int | None] = {}
    for video in videos:
        label = listed.get(video)
        if label is not None and video in tracks:
            x, y, _ = tracks[video][-1].tolist()
            if label == cell(x, y, inside=False) != cell(x, y):
                label = cell(x, y)
                ignored["(label at the edge, put back inside the grid)"] += 1
            elif label != cell(x, y):
                ignored["(label other than its scene's)"] += 1
        if label is not None and label not in CLASSES:
            label = None
            ignored["(label outside the grid)"] += 1
        labels[video] = label
    return labels
