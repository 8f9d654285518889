"""The loss at every position of a sequence (Fig. 10): which frame, and which cell of its grid.

Sequences of a stream -> losses in nats. Frame 0 is hard, later ones easier; a code that starts a frame or a row is
harder than its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from toto.shards.stream import Stream
from toto.train.data import training_ids
from toto.train.hardware import autocast
from toto.train.models import LanguageModel
from toto.train.parallel import Team


@dataclass(frozen=True)
class PositionLoss:
    """Losses of some sequences, in nats a token."""

    grid: np.ndarray  # float64 [frames, h, w]: the mean at each position
    by_sequence: np.ndarray  # float64 [n]: the mean of each sequence

    @property
    def mean(self) -> float:
        """Over all positions."""
        return float(self.grid.mean())

    @property
    def by_frame(self) -> np.ndarray:
        """float64 [frames]."""
        return np.asarray(self.grid.mean((1, 2)))

    @property
    def sequences(self) -> int:
        """How many were looked at."""
        return len(self.by_sequence)


@torch.no_grad()
def position_loss(
    model: LanguageModel, stream: Stream, sequences: Sequence[int], micro: int, precision: str, team: Team
) -> PositionLoss:
    """The losses of these sequences of a stream (numbers g), `micro` at a time, shared among the processes."""
    by_position = torch.zeros(stream.context, dtype=torch.float64, device=team.device)
    by_sequence = torch.zeros(len(sequences), dtype=torch.float64, device=team.device)
    mine = range(team.rank, len(sequences), team.world)
    for first in range(0, -(-len(sequences) // team.world), micro):
        chosen = mine[first : first + micro]
        # Every process makes as many passes, if need be an idle one: weights that are cut are gathered in each.
        read = [sequences[i] for i in chosen] or [sequences[0]]
        tokens = stream.sequences(np.array(read, np.int64)).tokens
        ids_BT = training_ids(torch.from_numpy(tokens).to(team.device), predict_end=False)
        with autocast(team.device, precision):
            losses = model(ids_BT[:, :-1], ids_BT[:, 1:]).double()
        if not chosen:
            continue
        by_position += losses.sum(0)
        by_sequence[chosen.start : chosen.stop : chosen.step] = losses.mean(1)
    mean = (team.sum(by_position) / len(sequences)).cpu().numpy()
    return PositionLoss(mean.reshape(-1, *stream.grid), team.sum(by_sequence).cpu().numpy())
