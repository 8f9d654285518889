"""The loss at every position of a sequence (Fig. 10): which frame, which cell of its grid, of which dataset.

    sequences of a stream ─▶ losses in nats ─▶ sums and sums of squares of each source, and the mean of each frame

Frame 0 is hard, later ones easier; a code that starts a frame or a row is harder than its neighbours. Memory does not
grow with the number of sequences, but for one number a frame. Standard errors are those of means over sequences; where
several sequences are of one video they are too small.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from toto.shards.stream import Stream
from toto.train.data import training_ids
from toto.train.hardware import autocast
from toto.train.models import LanguageModel
from toto.train.parallel import Team


@dataclass(frozen=True)
class PositionLoss:
    """Losses of n sequences, in nats a token."""

    grid: np.ndarray  # float64 [frames, h, w]: the mean at each position
    grid_error: np.ndarray  # float64 [frames, h, w]: its standard error; NaN of one sequence
    frames_by_sequence: np.ndarray  # float64 [n, frames]: the mean of each frame of each sequence
    within_frame_error: np.ndarray  # float64 [h, w]: standard errors of `within_frame`; NaN of one sequence
    by_source: dict[str, "PositionLoss"] = field(default_factory=dict)  # by name of the part; of a part: empty

    @property
    def mean(self) -> float:
        """Over all positions."""
        return float(self.grid.mean())

    @property
    def error(self) -> float | None:
        """Its standard error; None of one sequence."""
        return float(_error(self.by_sequence)) if self.sequences > 1 else None

    @property
    def by_sequence(self) -> np.ndarray:
        """float64 [n]: the mean of each sequence."""
        return np.asarray(self.frames_by_sequence.mean(1))

    @property
    def by_frame(self) -> np.ndarray:
        """float64 [frames]."""
        return np.asarray(self.grid.mean((1, 2)))

    @property
    def by_frame_error(self) -> np.ndarray:
        """float64 [frames]: standard errors; NaN of one sequence."""
        return _error(self.frames_by_sequence)

    @property
    def within_frame(self) -> np.ndarray:
        """float64 [h, w]: the mean of each cell over the frames after the first; of a single frame, its own."""
        return np.asarray(self.grid[1:].mean(0) if len(self.grid) > 1 else self.grid[0])

    @property
    def sequences(self) -> int:
        """How many were looked at."""
        return len(self.frames_by_sequence)

    def as_json(self) -> dict[str, Any]:
        """What `loss_by_position.json` says of all sequences, and of each source; errors are null of one sequence."""
        several = self.sequences > 1
        return {
            "model": self.mean,
            "model_error": self.error,
            "by_frame": self.by_frame.tolist(),
            "by_frame_error": self.by_frame_error.tolist() if several else None,
            "within_frame": self.within_frame.tolist(),
            "within_frame_error": self.within_frame_error.tolist() if several else None,
            "grid": self.grid.tolist(),
            "grid_error": self.grid_error.tolist() if several else None,
            "sequences": self.sequences,
        }


@torch.no_grad()
def position_loss(
    model: LanguageModel, stream: Stream, sequences: Sequence[int], micro: int, precision: str, team: Team
) -> PositionLoss:
    """The losses of these sequences of a stream (numbers g), `micro` at a time, shared among the processes."""
    names = [part.name for part in stream.recipe.parts]
    frames = stream.context // stream.cells
    # of each source and position, then each cell's mean over later frames: how many, their sum, that of their squares
    sums = torch.zeros(3, len(names), stream.context + stream.cells, dtype=torch.float64, device=team.device)
    by_frame = torch.zeros(len(sequences), frames, dtype=torch.float64, device=team.device)
    source = torch.zeros(len(sequences), dtype=torch.int64, device=team.device)
    mine = range(team.rank, len(sequences), team.world)
    for first in range(0, -(-len(sequences) // team.world), micro):
        chosen = mine[first : first + micro]
        # Every process makes as many passes, if need be an idle one: weights that are cut are gathered in each.
        read = stream.sequences(np.array([sequences[i] for i in chosen] or [sequences[0]], np.int64))
        ids_BT = training_ids(torch.from_numpy(read.tokens).to(team.device), predict_end=False)
        with autocast(team.device, precision):
            losses = model(ids_BT[:, :-1], ids_BT[:, 1:]).double()
        if not chosen:
            continue
        parts = torch.from_numpy(read.parts).to(team.device)
        by_cell = losses.unflatten(1, (frames, -1))
        each = torch.cat([losses, by_cell[:, min(1, frames - 1) :].mean(1)], 1)
        sums.index_add_(1, parts, torch.stack([torch.ones_like(each), each, each**2]))
        here = slice(chosen.start, chosen.stop, chosen.step)
        by_frame[here] = by_cell.mean(2)
        source[here] = parts
    found = (team.sum(sums).cpu().numpy(), team.sum(by_frame).cpu().numpy())
    return _all_and_each(*found, team.sum(source).cpu().numpy(), names, stream.grid)


def _all_and_each(
    sums: np.ndarray, by_frame: np.ndarray, source: np.ndarray, names: list[str], grid: tuple[int, int]
) -> PositionLoss:
    each = {
        name: _of(sums[:, i], by_frame[source == i], grid, {}) for i, name in enumerate(names) if (source == i).any()
    }
    return _of(sums.sum(1), by_frame, grid, each)


def _of(
    sums: np.ndarray, by_frame: np.ndarray, grid: tuple[int, int], by_source: dict[str, PositionLoss]
) -> PositionLoss:
    """`sums` float64 [3, context + cells]: number, sum and sum of squares at each position, and of each cell."""
    count, total, squares = sums
    mean = total / count
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum(squares / count - mean**2, 0) * count / (count - 1)
        error = np.sqrt(variance / count)
    at, cells = slice(-grid[0] * grid[1]), slice(-grid[0] * grid[1], None)
    return PositionLoss(
        mean[at].reshape(-1, *grid), error[at].reshape(-1, *grid), by_frame, error[cells].reshape(grid), by_source
    )


def _error(values: np.ndarray) -> np.ndarray:
    """The standard error of the mean over the first axis; NaN where there is one value."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(0, ddof=1) / np.sqrt(len(values)))
