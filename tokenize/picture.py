"""One frame, and what every kind of source offers while its frames are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import av

from toto.shards.flags import Flag


@dataclass(slots=True)  # not frozen: one is made for every frame, and that would take three times as long
class Picture:
    """A frame as it is coded: any pixel format, not yet upright."""

    index: int  # 0, 1, … in the order in which the decoder gives them, or would
    pts_us: int | None  # by the file's own clock, rounded to µs
    frame: av.VideoFrame | None  # None only for one that is not wanted, and perhaps was not decoded; never the first


class Pictures(Protocol):
    """The frames of one opened source, in order, read once. Errors are counted, not raised.

    `errors`, `detail`, `truncated` and `flags` are complete when the iteration has ended.
    """

    kind: str  # "video" | "image"
    codec: str
    rate: float | None  # frames per second that the container claims, where it is believable
    errors: int
    detail: str
    truncated: bool  # the file ends before what its header announces
    flags: Flag

    def __iter__(self) -> Iterator[Picture]: ...
