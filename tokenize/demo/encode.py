"""Pictures to video files by PyAV: the suffix chooses the container, the name of the codec its settings.

One thread per file, so that the bytes do not depend on the machine; files are written side by side instead.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

SETTINGS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "superfast", "crf": "20", "bf": "2", "threads": "1"}),
    "vp9": (
        "libvpx-vp9",
        {
            "deadline": "realtime",
            "cpu-used": "8",
            "crf": "24",
            "b": "0",
            "lag-in-frames": "0",
            "threads": "1",
        },
    ),
    "mpeg4": ("mpeg4", {"qmin": "3", "qmax": "5", "bf": "0", "threads": "1"}),
}


def write_video(path: Path, pictures: Iterable[Image.Image], fps: int, codec: str, size: tuple[int, int]) -> None:
    """Writes RGB pictures of `size` (width, height, even) as 4:2:0 video at a constant rate."""
    encoder, options = SETTINGS[codec]
    # Without bitexact a WebM file holds a random number.
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        stream = cast(VideoStream, container.add_stream(encoder, rate=fps, options=options))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
