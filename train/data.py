"""The stream as tensors: micro-batches for our trainer, and a dataset of `len()` and `[i]` for everybody else's.

    step s, rank r of R  ->  sequences [s*B + r*B/R, s*B + (r+1)*B/R)  ->  micro-batches, in order, by any workers

A sequence is `[start] t1 … tN` (N = context), with `predict_end` also `[end]`: the model reads all but the last and
predicts all but the first, so each code is predicted once. What a step holds depends on the stream alone.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from toto.errors import UsageError, UserError
from toto.shards.keyed import MASK
from toto.shards.stream import Stream

PREFETCH = 4  # micro-batches that a worker reads ahead
GRACE_S = 120  # a worker that was told to stop reads on for so long at most


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one rank."""

    step: int
    ids: torch.Tensor  # int64 [b, context + 1], with predict_end [b, context + 2]
    parts: torch.Tensor  # int64 [b]: number of the part in the recipe
    hash: int  # sum mod 2^64 of the sequences' hashes; summed over a step's micro-batches and ranks, the step's
    first: bool  # of its step, on this rank
    last: bool

    @property
    def inputs(self) -> torch.Tensor:
        """int64 [b, context], one more with predict_end: [start] t1 …"""
        return self.ids[:, :-1]

    @property
    def targets(self) -> torch.Tensor:
        """int64, of the shape of `inputs`: what comes after each of them."""
        return self.ids[:, 1:]

    def pin_memory(self) -> "Batch":
        """A copy in pinned memory; DataLoader asks for it."""
        return Batch(self.step, self.ids.pin_memory(), self.parts.pin_memory(), self.hash, self.first, self.last)


class Sequences(Dataset[dict[str, torch.Tensor]]):
    """Sequences `consumed` … `total` - 1 of a stream, for DataLoader, StatefulDataLoader and the Hugging Face Trainer.

    `[i]` is {"input_ids", "labels"}, both int64 [context + 1] (+ 1 with predict_end): `[start] t1 … tN`; labels equal
    the inputs, as Hugging Face's models shift them by one themselves. Read it in order: i is the order of training.
    """

    def __init__(self, stream: Stream, total: int, consumed: int = 0, predict_end: bool = False) -> None:
        if not 0 <= consumed <= total:
            raise UsageError(f"{consumed} of {total} sequences consumed")
        self.stream, self.total, self.consumed, self.predict_end = stream, total, consumed, predict_end

    def __len__(self) -> int:
        return self.total - self.consumed

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"sequence {i} of {len(self)}")
        number = self.consumed + i % len(self)
        ids = torch.from_numpy(training_ids(self.stream.sequence(number).tokens, self.predict_end))
        return {"input_ids": ids, "labels": ids.clone()}

    def state_dict(self, done: int = 0) -> dict[str, Any]:
        """Where a run is that took `done` sequences from this dataset. StatefulDataLoader and the Trainer count what
        they took themselves, and need it without."""
        return {"consumed": self.consumed + done, "recipe": self.stream.recipe.id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on there; UserError when the state is of another recipe."""
        if state.get("recipe") != self.stream.recipe.id:
            raise UserError(
                f"this state is of recipe {state.get('recipe')}, the stream's is {self.stream.recipe.id}: "
                "other datasets, weights, windows or seed; go on with the recipe.json of that run"
            )
        if not 0 <= state["consumed"] <= self.total:
            raise UserError(f"this state has consumed {state['consumed']} sequences; the run has {self.total}")
        self.consumed = state["consumed"]


def training_ids(tokens: np.ndarray, predict_end: bool) -> np.ndarray:
    """Ids of a stored sequence, [context + 2] -> int64 [context + 1], with the end id where it is to be predicted."""
    return (tokens if predict_end else tokens[:-1]).astype(np.int64)


def loader(
    stream: Stream,
    steps: range,
    rank: int,
    world: int,
    micro_sequences: int,
    workers: int,
    predict_end: bool,
    pinned: bool = False,
) -> Iterator[Batch]:
    """This rank's micro-batches of these steps, in order; the last of a step may be smaller, on every rank alike.

    UsageError when the step's sequences cannot be dealt out evenly; what goes wrong in a worker is raised here.
    """
    batch = stream.recipe.batch_sequences
    if batch % world:
        raise UsageError(f"a batch of {batch} sequences is not divisible by {world} ranks")
    if not 0 <= rank < world or micro_sequences < 1 or steps.step != 1:
        raise UsageError(f"rank {rank} of {world}, micro-batches of {micro_sequences} sequences, {steps}: not possible")
    reader = _Reader(stream, steps, rank, world, min(micro_sequences, batch // world), predict_end)
    return _batches(reader, workers, pinned)


def _batches(reader: "_Reader", workers: int, pinned: bool) -> Iterator[Batch]:
    """DataLoader hands micro-batch i to worker i mod workers and gives them back in order."""
    made = DataLoader(
        reader,
        batch_size=None,
        num_workers=workers,
        pin_memory=pinned,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=_read_on,
        generator=torch.Generator(),  # its seed for workers would be drawn from the model's generator otherwise
    )
    for item in made:
        if isinstance(item, UserError):
            raise item
        yield item


def _read_on(worker: int) -> None:
    """A stop often reaches all processes of a job at once; the trainer finishes its step first, and needs its workers.
    It ends them by itself, and without it they end too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE_S))


class _Reader(Dataset[Any]):
    """Micro-batch i of a rank, for any i."""

    def __init__(
        self, stream: Stream, steps: range, rank: int, world: int, micro_sequences: int, predict_end: bool
    ) -> None:
        self._stream, self._steps, self._predict_end = stream, steps, predict_end
        self._share = stream.recipe.batch_sequences // world
        self._first = rank * self._share
        self._micro = micro_sequences
        self._per_step = -(-self._share // micro_sequences)

    def __len__(self) -> int:
        return len(self._steps) * self._per_step

    def __getitem__(self, i: int) -> Batch | UserError:
        """The micro-batch, or what a user has to be told: an exception would reach them inside a worker's traceback."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        try:
            return self._read(self._steps[i // self._per_step], i % self._per_step)
        except UserError as error:
            return UserError(str(error))

    def _read(self, step: int, micro: int) -> Batch:
        start = step * self._stream.recipe.batch_sequences + self._first
        own = range(micro * self._micro, min((micro + 1) * self._micro, self._share))
        sequences = [self._stream.sequence(start + i) for i in own]
        ids = np.stack([training_ids(sequence.tokens, self._predict_end) for sequence in sequences])
        numbers = [self._stream.parts.index(sequence.part) for sequence in sequences]
        return Batch(
            step=step,
            ids=torch.from_numpy(ids),
            parts=torch.tensor(numbers),
            hash=sum(sequence.hash for sequence in sequences) & MASK,
            first=micro == 0,
            last=micro == self._per_step - 1,
        )
