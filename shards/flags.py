"""Bits of the `flags` column: what a reader should know of a row's source."""

import enum


class Flag(enum.IntFlag):
    """Bits of the `flags` column."""

    SALVAGED = 1  # the source is damaged; the frames that could be decoded are here
    HDR = 2  # PQ or HLG transfer; not tone-mapped
    ROTATED = 4  # turned upright from the file's display matrix or EXIF orientation
    VARIABLE_RATE = 8  # some kept frame's time is more than 1 ms off a steady frame rate
    REPEATED = 16  # some frame stands more than once (fps or uniform sampling of a shorter source)
    NON_SQUARE = 32  # the file declares non-square pixels; they are not resampled to square ones
    MIRRORED = 64  # this row shows its crop mirrored left to right (flips); says nothing of the source
