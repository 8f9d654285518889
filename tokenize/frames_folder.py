"""`frames:FOLDER`: a folder of pictures that is one video, as DAVIS has them; local or through fsspec.

    frames:/data/DAVIS/JPEGImages/480p/bear ─▶ 00000.jpg, 00001.jpg, … (sorted by name) ─▶ frames 0, 1, …

A frame's number is its picture's place in the folder, also behind a damaged picture, so that masks stay beside their
frames. Pictures have no times.
"""

import os
from collections.abc import Iterator

from toto.shards.flags import Flag
from toto.tokenize.clip import SourceError
from toto.tokenize.decode_image import ImagePictures
from toto.tokenize.input_file import check, open_binary
from toto.tokenize.part import plain_path
from toto.tokenize.picture import Picture
from toto.tokenize.storage import filesystem, in_store, on_disk

PREFIX = "frames:"


class FolderPictures:
    """The frames of a folder (see picture.Pictures). A picture that cannot be used is counted, and the next one read.

    Raises SourceError `missing`, or `empty` for a folder without pictures; TransientError, MemoryError.
    """

    kind = "video"
    rate: float | None = None
    truncated = False

    def __init__(self, uri: str) -> None:
        self.uris = list_pictures(uri)
        self.codec = ""  # of the first picture that can be read
        self.errors = 0
        self.detail = ""
        self.flags = Flag(0)

    def __iter__(self) -> Iterator[Picture]:
        for index, uri in enumerate(self.uris):
            try:
                found = self._read(uri)
            except SourceError as error:
                self._count(uri, str(error))
                continue
            if found is not None:
                yield Picture(index, None, found.frame)

    def _read(self, uri: str) -> Picture | None:
        check(uri)
        with open_binary(uri) as file:
            pictures = ImagePictures(file, animated=False)
            found = next(iter(pictures), None)
        if found is None:
            self._count(uri, pictures.detail)
        self.codec = self.codec or pictures.codec
        self.flags |= pictures.flags
        return found

    def _count(self, uri: str, problem: str) -> None:
        self.errors += 1
        self.detail = self.detail or f"{uri.rpartition('/')[2]}: {problem}"[:300]


def folder_of(uri: str) -> str | None:
    """The folder of a `frames:` URI; None for any other one."""
    return uri.removeprefix(PREFIX) if uri.startswith(PREFIX) else None


def list_pictures(uri: str) -> list[str]:
    """URIs of the pictures of a `frames:` URI, sorted by name. SourceError `missing` or `empty`, TransientError."""
    folder = uri.removeprefix(PREFIX).rstrip("/")
    path = plain_path(folder)
    names = _names(path) if path is not None else _remote_names(folder)
    pictures = [f"{folder}/{name}" for name in sorted(filter(_is_picture, names))]
    if not pictures:
        raise SourceError("empty", "a folder without pictures")
    return pictures


def _names(path: str) -> list[str]:
    def scan() -> list[str]:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if not entry.is_dir()]

    return on_disk(scan)


def _remote_names(folder: str) -> list[str]:
    files, path = filesystem(folder)
    found = in_store(lambda: files.ls(path, detail=True))
    return [item["name"].rpartition("/")[2] for item in found if item.get("type") != "directory"]


def _is_picture(name: str) -> bool:
    # Reading a single file needs none of this: the package of readers brings pyarrow into the decoding child.
    from toto.tokenize.sources.names import IMAGE_SUFFIXES, is_passed_over, suffix_of

    return suffix_of(name) in IMAGE_SUFFIXES and not is_passed_over(name)
