"""One video or image of a dataset, as a reader finds it."""

from dataclasses import dataclass

MISSING_SIZE = -1


@dataclass(frozen=True, slots=True)
class Source:
    """One video or image of a dataset."""

    key: str  # relative to the dataset, posix, valid UTF-8, unique; never a URI or an absolute path
    uri: str  # where to read it: a local path (odd bytes are surrogates, as in `os`), or what fsspec opens
    kind: str  # "video" | "image", by layout and suffix
    split: str  # "all" for folder
    label: int | None
    size: int  # bytes; MISSING_SIZE when the official list names it but it is not there
    mtime_us: int = 0  # µs since 1970; 0 when the store does not say
    etag: str = ""
    moments: tuple[int, ...] | None = None  # ascending decoded frames: its row holds these alone
