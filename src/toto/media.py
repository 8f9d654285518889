"""Pixels from and to media files, when `toto-video[tokenize]` is installed; raises ImportError otherwise.

One of the two lazy bridges of the design: viewers load it by name and fall back to GIF and PNG without it.
"""

from toto.tokenize.find_source import find
from toto.tokenize.media import frames, write_video

__all__ = ["find", "frames", "write_video"]
