"""1X's world-model files: all frames of a dataset one behind the other, and to which segment each belongs.

    metadata.json   token_dtype, s, num_images; hz and vocab_size where they are told
    video.bin       num_images × s × s codes
    segment_ids.bin num_images × int32; without it all is one segment

A source is a segment: neighbouring frames of one id. A window never crosses from one to the next.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from toto.errors import UserError
from toto.plain import counted
from toto.shards import ids
from toto.shards.rewrite.foreign import Facts
from toto.shards.rewrite.foreign_files import Files
from toto.shards.rewrite.foreign_rows import AT_ONCE, check_codes, video_rows
from toto.shards.rewrite.npy import BadFile
from toto.shards.schema import RowRecord

VIDEO, SEGMENTS = "video.bin", "segment_ids.bin"
DTYPES = ("uint8", "uint16", "uint32", "int32", "int64")
MOST_IMAGES = 1 << 40


def is_raw_video(files: Files) -> bool:
    """Whether a folder holds such files."""
    return files.has(VIDEO)


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """1X's keys as ours: s, or h and w, are the grid; hz is the rate."""
    side = values.get("s")
    grid = [values.get("h", side), values.get("w", side)]
    rate = {"fps": values["hz"]} if "hz" in values else {}
    kept = {key: values[key] for key in ("name", "vocab_size", "patch", "stride", "fps") if key in values}
    return {**rate, **kept, "grid": grid, "kind": "video"}


class RawVideo:
    """The segments of one video.bin."""

    layout = "1x"

    def __init__(self, files: Files, values: Mapping[str, Any], facts: Facts, split: str) -> None:
        self._arguments = files, values, facts, split
        dtype, images = values.get("token_dtype", "uint32"), values.get("num_images")
        where = f"{files.uri}/metadata.json"
        if dtype not in DTYPES:
            raise UserError(f"{where}: token_dtype {str(dtype)[:40]!r}; {', '.join(DTYPES)} can be read")
        if type(images) is not int or not 1 <= images <= MOST_IMAGES or facts.grid is None:
            raise UserError(f"{where}: num_images and s must tell how many frames of which grid video.bin holds")
        self._facts, self._split, self.ignored, self.labelled = facts, split, 0, 0
        self._files = files
        try:
            self._codes = files.frames(VIDEO, np.dtype(dtype).newbyteorder("<"), (images, *facts.grid))
        except BadFile as error:
            raise UserError(f"{files.uri}: {error}; metadata.json and the files do not go together") from None

    def __reduce__(self) -> tuple[Any, ...]:
        """Opens the files anew instead of carrying them."""
        return RawVideo, self._arguments

    def lines(self) -> Iterator[dict[str, Any]]:
        """A line of the plan for each stretch of frames of one segment; one that comes back is a source of its own."""
        images, cells = self._codes.shape[0], math.prod(self._codes.shape[1:])
        ids_of, changed = self._segments(images), self._changed()
        cuts = np.empty(0, np.int64) if ids_of is None else np.flatnonzero(np.diff(ids_of)) + 1
        edges = [0, *cuts.tolist(), images]
        times: Counter[int] = Counter()
        width = ids.id_dtype(self._facts.vocab_size).itemsize
        for start, stop in zip(edges, edges[1:], strict=False):
            segment = 0 if ids_of is None else int(ids_of[start])
            times[segment] += 1
            again = f".{times[segment]}" if times[segment] > 1 else ""
            size = (stop - start) * cells * self._codes.itemsize
            yield {
                **{"key": f"segment-{segment:06d}{again}", "split": self._split, "kind": "video", "label": None},
                **{"size": size, "first": start, "frames": stop - start, "bytes": (stop - start) * cells * width},
                "changed": changed,
            }

    def each(self, lines: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Iterator[RowRecord]]]:
        """Each of these lines with the rows of its segment, all of whose codes are checked first: BadFile."""
        return ((line, self._rows(line)) for line in lines)

    def _segments(self, images: int) -> np.ndarray | None:
        """int32 [images]: to which segment each frame belongs."""
        if not self._files.has(SEGMENTS):
            return None
        try:
            return np.asarray(self._files.frames(SEGMENTS, np.dtype("<i4"), (images,)))
        except BadFile as error:
            raise UserError(f"{self._files.uri}: {error}; metadata.json and the files do not go together") from None

    def _changed(self) -> list[int | str]:
        changed = {entry.key: entry.changed for entry in self._files.entries()}
        return [changed[name] for name in (VIDEO, SEGMENTS) if name in changed]

    def _rows(self, line: dict[str, Any]) -> Iterator[RowRecord]:
        if line["first"] + line["frames"] > len(self._codes):
            raise BadFile("changed", f"{VIDEO} has {counted(len(self._codes), 'frame')} now")
        codes = self._codes[line["first"] : line["first"] + line["frames"]]
        step = max(1, AT_ONCE // math.prod(codes.shape[1:]))
        for start in range(0, len(codes), step):
            check_codes(np.asarray(codes[start : start + step]), self._facts.vocab_size)
        yield from video_rows(line["key"], line["label"], codes, self._facts)
