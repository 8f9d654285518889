"""Frames -> shingles: hashes of K frames in a row, by which the same pictures are found wherever they stand.

    codes [F, h, w] ─xxh3-64 a frame─▶ moving frames ─K in a row, all different─▶ records (hash, row, place, neighbours)

A frame that is one code all over, or equals the one before it, is passed over: black, titles and stills would make
everything alike. The others are a run's moving frames. An image is a shingle by itself, and meets images only.
"""

from dataclasses import dataclass

import numpy as np
import xxhash

from toto.shards.batch import Batch
from toto.shards.ids import KIND_IMAGE
from toto.shards.schema import hashes_of_keys
from toto.shards.statistics.block import Block, blocks

RECORD = np.dtype(
    [
        ("hash", "<u8"),
        ("source", "<u8"),  # xxh3-64 of its key
        ("before", "<u8"),  # hash of the shingle that comes before in the run, with its distance; 0: there is none
        ("after", "<u8"),
        ("row", "<u4"),  # in the order of the dataset
        ("place", "<u2"),  # of the first frame among the run's moving frames
        ("first", "<u2"),  # frame of the row
        ("last", "<u2"),
        ("side", "u1"),
        ("image", "?"),
    ]
)
ODD = np.uint64(0x9E3779B97F4A7C15)
IMAGE_MARK = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class Search:
    """What is searched for."""

    frames: int = 8  # K: moving frames in a row
    every: int = 1  # of the shingles one in so many is kept, chosen by its hash

    def recall(self, frames: int) -> float:
        """Chance that a shared run of so many moving frames is found."""
        return 1 - (1 - 1 / self.every) ** max(0, frames - self.frames + 1)


def shingles(batch: Batch, vocab_size: int, first_row: int, side: int, search: Search) -> tuple[np.ndarray, int]:
    """RECORD [many] of a batch, and how many of its rows have none to keep; `first_row`: of the batch in the dataset.

    Such a row has fewer than K moving frames that differ, so nothing of it can be found.
    """
    sources = hashes_of_keys(batch.sources)
    found, missed = [np.empty(0, RECORD)], batch.rows
    for block in blocks(batch, vocab_size):
        image = batch.kind[block.rows] == KIND_IMAGE
        records, searched = _of_block(block, np.repeat(image, block.n_frames), search)
        missed -= searched
        rows = block.rows[records["row"]]  # numbers in the block until here
        records["source"], records["image"] = sources[rows], batch.kind[rows] == KIND_IMAGE
        records["row"], records["side"] = first_row + rows, side
        found.append(records)
    return np.concatenate(found), missed


def _of_block(block: Block, image: np.ndarray, search: Search) -> tuple[np.ndarray, int]:
    hashes, blank = _frame_hashes(block)
    row = np.repeat(np.arange(len(block.rows)), block.n_frames)
    frame = np.arange(len(hashes)) - block.starts[row]
    moving = ~blank
    moving[1:] &= (hashes[1:] != hashes[:-1]) | (row[1:] != row[:-1])
    still = np.flatnonzero(moving & image)
    moving &= ~image
    kept = np.flatnonzero(moving)
    runs, searched = _windows(hashes[kept], row[kept], frame[kept], search)
    alone = np.zeros(len(still), RECORD)
    alone["hash"], alone["row"] = hashes[still] ^ IMAGE_MARK, row[still]
    if search.every > 1:
        alone = alone[alone["hash"] % search.every == 0]
    return np.concatenate([runs, alone]), searched + len(still)


def _frame_hashes(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """uint64 [F]: xxh3-64 of each frame's codes, little-endian; bool [F]: whether they are all the same code."""
    codes = block.codes.astype(block.codes.dtype.newbyteorder("<"), copy=False)
    view, size = memoryview(codes.tobytes()), block.cells * codes.itemsize
    digest = xxhash.xxh3_64_intdigest
    hashes = np.array([digest(view[i : i + size]) for i in range(0, len(view), size)], np.uint64)
    flat = codes.reshape(len(codes), -1)
    return hashes, (flat == flat[:, :1]).all(axis=1)


def _windows(hashes: np.ndarray, row: np.ndarray, frame: np.ndarray, search: Search) -> tuple[np.ndarray, int]:
    """Shingles of moving frames, which stand one row after the other, and of how many rows there are any."""
    k, count = search.frames, len(hashes) - search.frames + 1
    if count < 1:
        return np.empty(0, RECORD), 0
    mixed = np.zeros(count, np.uint64)
    good = row[:count] == row[k - 1 :]
    for i in range(k):
        mixed = (mixed ^ hashes[i : i + count]) * ODD
        mixed ^= mixed >> np.uint64(29)
        for j in range(i):
            good &= hashes[i : i + count] != hashes[j : j + count]
    searched = len(np.unique(row[:count][good]))
    if search.every > 1:
        good &= mixed % np.uint64(search.every) == 0
    at = np.flatnonzero(good)
    row_start = np.searchsorted(row, row[at])
    records = np.zeros(len(at), RECORD)
    records["hash"], records["row"], records["place"] = mixed[at], row[at], at - row_start
    records["first"], records["last"] = frame[at], frame[at + k - 1]
    gap = np.diff(at)
    near = (row[at][1:] == row[at][:-1]) & (gap <= k)  # their frames leave none out between them
    records["before"][1:][near] = _neighbour(records["hash"][:-1], gap)[near]
    records["after"][:-1][near] = _neighbour(records["hash"][1:], gap)[near]
    return records, searched


def _neighbour(hashes: np.ndarray, gap: np.ndarray) -> np.ndarray:
    return (hashes + gap.astype(np.uint64) * ODD) | np.uint64(1)
