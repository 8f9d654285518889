"""A source's header: how many frames it claims, how large, how fast. Often wrong, so for estimates only."""

from contextlib import closing
from dataclasses import dataclass

from toto.tokenize.clip import SourceError
from toto.tokenize.container import open_container, video_stream
from toto.tokenize.decode_image import ImagePictures
from toto.tokenize.decode_video import believable_rate
from toto.tokenize.frames_folder import folder_of, list_pictures
from toto.tokenize.input_file import check, open_binary
from toto.tokenize.sampling import DEFAULT_RATE
from toto.tokenize.transient import TransientError


@dataclass(frozen=True)
class Probe:
    """What a header says."""

    frames: int  # decoded frames by the header's claim, at least 1
    width: int  # as coded: not turned upright
    height: int
    fps: float | None
    duration_s: float | None
    codec: str


def probe(uri: str, kind: str) -> Probe | None:
    """The header of a "video" or "image" source; None where it cannot be read: a bad file never raises."""
    try:
        if folder_of(uri) is not None:
            return _folder(uri)
        check(uri)
        return _picture(uri) if kind == "image" else _video(uri)
    except (SourceError, TransientError, MemoryError):
        return None


def _video(uri: str) -> Probe:
    with closing(open_container(uri)) as container:
        stream = video_stream(container)
        rate = believable_rate(stream.average_rate, stream.guessed_rate)
        duration_s = container.duration / 1e6 if container.duration and container.duration > 0 else None
        claimed = stream.frames or round((duration_s or 0) * (rate or DEFAULT_RATE))
        codec = stream.codec_context.codec.canonical_name
        return Probe(max(1, claimed), stream.width, stream.height, rate, duration_s, codec)


def _folder(uri: str) -> Probe:
    uris = list_pictures(uri)
    first = _picture(uris[0])
    return Probe(len(uris), first.width, first.height, None, None, first.codec)


def _picture(uri: str) -> Probe:
    with open_binary(uri) as file:
        pictures = ImagePictures(file, animated=True)
        width, height = pictures.size
        frames = pictures.frames if pictures.kind == "video" else 1
        return Probe(frames, width, height, None, None, pictures.codec)
