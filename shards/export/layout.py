"""What every exported piece of a split looks like: ids or codes, their type, the shape where all have the same."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from toto.errors import UserError
from toto.shards.ids import CODE_OFFSET
from toto.shards.row import Window


@dataclass(frozen=True)
class Layout:
    """How pieces become arrays."""

    codes: bool  # codes [T, h, w] instead of ids [start] + T·h·w + [end]
    dtype: np.dtype  # uint16 while every id fits, else uint32
    frames: int | None  # of a window; None: whole rows, of different lengths

    @property
    def name(self) -> str:
        """What the arrays are called in the exported files."""
        return "codes" if self.codes else "ids"

    def array(self, window: Window) -> np.ndarray:
        """The piece: ids [n], or codes [T, h, w]."""
        if not self.codes:
            return window.tokens.astype(self.dtype, copy=False)
        grid = (window.frames, window.row.grid_h, window.row.grid_w)
        return (window.tokens[1:-1] - self.dtype.type(CODE_OFFSET)).astype(self.dtype, copy=False).reshape(grid)


class OneShape:
    """Holds every array against the first one: in what is told, or in all but the frames."""

    def __init__(self, but_frames: bool = False) -> None:
        self._first = 1 if but_frames else 0
        self.shape: tuple[int, ...] | None = None

    def check(self, array: np.ndarray, facts: dict[str, Any]) -> None:
        """UserError where a piece has another shape than those before it."""
        shape = array.shape[self._first :]
        if self.shape is None:
            self.shape = shape
        if shape != self.shape:
            raise UserError(
                f"{facts['source']}: a piece of shape {array.shape} among others of {self.shape}: its grid differs. "
                "Export --rows of ids to webdataset, litdata or npy, where pieces may differ"
            )
