"""Names of media files: suffix -> kind, and odd bytes -> text that can be stored anywhere."""

import os
import re

from toto.uris import shown as shown

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .qt .webm .mkv .avi .divx .wmv .asf .flv .f4v .3gp .3g2 .mpg .mpeg .mpe .m1v .m2v .mpv"
    " .ts .mts .m2ts .m2t .vob .ogv .ogm .mxf .rm .rmvb .dv .mjpg .mjpeg .y4m .ivf .nut .amv"
    " .h261 .h263 .h264 .264 .avc .h265 .265 .hevc .hvc .h266 .266 .vvc .av1 .obu".split()
)
IMAGE_SUFFIXES = frozenset(  # an animated one turns out to be a video when it is decoded
    ".jpg .jpeg .jpe .jfif .png .apng .gif .webp .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .tga"
    " .jp2 .j2k .jpx .avif .heic .heif .qoi".split()
)
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES
_LEFT_BEHIND = frozenset({"__MACOSX", "@eaDir", "lost+found", "Thumbs.db"})  # by archivers and systems

# A % before what looks like an escape made by `escape`, or like an escaped %. Odd bytes are 0x80 and above.
_PERCENT = re.compile(r"%(?=(?:25)*[89A-F][0-9A-F])")


def suffix_of(name: str) -> str:
    """The lower-case suffix, such as ".mp4"; "" when there is none."""
    return os.path.splitext(name)[1].lower()


def kind_of(name: str) -> str:
    """Either "video" or "image", by suffix."""
    return "video" if suffix_of(name) in VIDEO_SUFFIXES else "image"


def is_passed_over(name: str) -> bool:
    """Whether a file or folder is hidden or was left behind by some program."""
    return name.startswith(".") or name in _LEFT_BEHIND


def is_text(name: str) -> bool:
    """Whether a name is UTF-8 (on disk; in Python: has no surrogates)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape(name: str) -> str:
    """A name as valid UTF-8: bytes that are none (surrogates, as `os.fsdecode` gives them) become %XX.

    A % that looks like such an escape becomes %25, so that no two names meet; other names stay as they are.
    """
    if name.isascii() and "%" not in name:
        return name
    marked = _PERCENT.sub("%25", name)
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in marked)
