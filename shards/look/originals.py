"""The way back from a row to the source frames it was made of, where the source can still be reached.

    key ─ Find ─▶ path or URI ─ toto.media (by name, only where toto-video[tokenize] is installed) ─▶ frames
            └ in a tar: toto.media finds it, too

A viewer that cannot have them goes on without and says why in one line (`Originals.note`).
"""

import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module

import numpy as np

from toto.errors import UserError

Find = Callable[[str], str | None]  # a source's key -> where to read it; None when it is not there
NO_ROOT = "source frames are not shown: --sources ROOT names the folder that the dataset was made from"
NO_MEDIA = "source frames are not shown: reading them needs pip install 'toto-video[tokenize]'"


class Originals:
    """Source frames by key, decoded frame index and crop; keeps the first reason why some could not be had."""

    def __init__(self, find: Find | None) -> None:
        self._find = find
        self._missed = 0
        self._why = "" if find is not None else NO_ROOT

    @property
    def note(self) -> str | None:
        """One line on what is not shown and why, or None."""
        if not self._missed or self._why in (NO_ROOT, NO_MEDIA):
            return self._why or None
        return f"source frames of {self._missed} not shown: {self._why}"

    def frames(self, key: str, index: Sequence[int], crop: tuple[int, int, int, int]) -> list[np.ndarray] | None:
        """uint8 RGB [h, w, 3] for each decoded frame index, cut to `crop` (x, y, w, h); None where out of reach."""
        if self._find is None:
            return None
        try:
            uri = self._find(key)
            if uri is None:
                raise UserError(f"{key} is not there")
            return list(import_module("toto.media").frames(uri, list(index), crop))
        except ImportError:
            why = NO_MEDIA
        except (UserError, OSError) as error:
            why = str(error)
        self._missed += 1
        self._why = self._why or why
        return None


def under(root: str) -> Find:
    """Finds keys under a local folder, or, without looking, under an fsspec URI."""
    if "://" in root:
        return lambda key: f"{root.rstrip('/')}/{key}" if _stays_inside(key) else None
    if not os.path.isdir(root):
        raise UserError(f"--sources {root}: no such folder")
    return lambda key: (_local(root, key) or _by_media(root, key)) if _stays_inside(key) else None


def _stays_inside(key: str) -> bool:
    """Keys come from strangers' datasets: none may lead out of the root."""
    return bool(key) and not os.path.isabs(key) and ".." not in key.replace("\\", "/").split("/")


def _local(root: str, key: str) -> str | None:
    """The file with this key, or with this key less its suffix, there or in a class folder one level below; a folder
    with this key is a video of pictures."""
    exact = os.path.join(root, key)
    if os.path.isfile(exact):
        return exact
    if os.path.isdir(exact):
        return f"frames:{exact}"
    folder, name = os.path.split(exact)
    below = (os.path.join(folder, sub) for sub in _contents(folder).folders)
    found = (_contents(place).by_stem.get(name) for place in (folder, *below))
    return next((path for path in found if path is not None), None)


def _by_media(root: str, key: str) -> str | None:
    """What only the stage that reads sources finds: files in tars, and layouts whose keys are no names of files.

    Raises ImportError where it is not installed.
    """
    found: str | None = import_module("toto.media").find(root, key)
    return found


class _Contents:
    """One folder, listed once: its sub-folders, and its files by name without suffix."""

    def __init__(self, folder: str) -> None:
        self.folders: list[str] = []
        self.by_stem: dict[str, str] = {}
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            entries = []
        for entry in entries:
            if entry.is_dir():
                self.folders.append(entry.name)
            elif entry.is_file():
                self.by_stem.setdefault(os.path.splitext(entry.name)[0], entry.path)


@cache
def _contents(folder: str) -> _Contents:
    return _Contents(folder)
