"""Token ids: codes and the four special ids that frame them.

    row = [start] + n_frames * grid_h * grid_w codes (raster order, frame after frame) + [end]

The paper (Sec. 3.1) gives [1] to a video's start, [2] to its end, [3] to an image's; a tokenizer's codes 1, 2
and 3 are real codes, so codes are shifted by 4. The layout is stored in every dataset and every shard.
"""

import numpy as np

PAD, VIDEO_START, END, IMAGE_START = 0, 1, 2, 3
CODE_OFFSET = 4
ID_LAYOUT = {
    "pad": PAD,
    "video_start": VIDEO_START,
    "end": END,
    "image_start": IMAGE_START,
    "code_offset": CODE_OFFSET,
}
KIND_VIDEO, KIND_IMAGE = 1, 3  # a row's kind is the start id of its tokens


def id_dtype(vocab_size: int) -> np.dtype:
    """uint16 while every id fits, else uint32."""
    return np.dtype(np.uint16 if vocab_size + CODE_OFFSET <= 1 << 16 else np.uint32)


def model_vocab(vocab_size: int) -> int:
    """Rows of a model's table: used ids rounded up to a multiple of 128 (8,196 -> 8,320)."""
    return -(-(vocab_size + CODE_OFFSET) // 128) * 128


def to_ids(codes: np.ndarray, kind: int, dtype: np.dtype) -> np.ndarray:
    """Codes int [n, h, w] of one row -> its ids [2 + n*h*w] with start and end."""
    ids = np.empty(codes.size + 2, dtype)
    ids[0], ids[-1] = kind, END
    ids[1:-1] = codes.reshape(-1) + CODE_OFFSET
    return ids


def to_codes(ids: np.ndarray, grid_h: int, grid_w: int) -> np.ndarray:
    """A row's ids [2 + n*h*w] -> codes int32 [n, h, w] (n = 0 where the row has no codes)."""
    return (ids[1:-1].astype(np.int32) - CODE_OFFSET).reshape(-1, max(grid_h, 1), max(grid_w, 1))
