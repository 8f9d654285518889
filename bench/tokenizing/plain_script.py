"""The straightforward way to token files, one process a core: PyAV -> RGB -> Pillow -> ids -> .npy for each video.

python plain_script.py OUT VIDEO…
"""

import sys
from pathlib import Path

import av
import numpy as np
from clips import STRIDE, crop_of

from toto.tokenize.tokenizers.dct import DCT

BATCH = 16


def main(out: Path, videos: list[Path]) -> None:
    """Writes OUT/<name>.npy, uint16 [frames, 16, 16]."""
    tokenizer = DCT(8192)
    for video in videos:
        codes, batch = [], []
        with av.open(str(video)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for i, frame in enumerate(container.decode(video=0)):
                if i % STRIDE == 0:
                    batch.append(crop_of(frame.to_ndarray(format="rgb24")))
                if len(batch) == BATCH:
                    codes.append(tokenizer.encode(np.stack(batch).transpose(0, 3, 1, 2)))
                    batch = []
        if batch:
            codes.append(tokenizer.encode(np.stack(batch).transpose(0, 3, 1, 2)))
        np.save(out / f"{video.stem}.npy", np.concatenate(codes).astype(np.uint16))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
