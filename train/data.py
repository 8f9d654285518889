"""The stream as tensors: micro-batches for our trainer, and a dataset of `len()` and `[i]` for everybody else's.

    step s, rank r of R  ->  sequences [s*B + r*B//R, s*B + (r+1)*B//R)  ->  micro-batches, in order, by any workers

A sequence is `[start] t1 … tN` (N = context), with `predict_end` also `[end]`: the model reads all but the last and
predicts all but the first, so each code is predicted once. What a step holds depends on the stream alone.
"""

import os
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import RawValue, parent_process
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from toto.errors import UsageError, UserError
from toto.plain import counted
from toto.shards.stream import Stream
from toto.shards.streaming.keyed import MASK
from toto.shards.streaming.position import Position
from toto.shards.workers import STOPS, stops_wait

READ_TOKENS = 1 << 18  # of micro-batches that are read together: one by one, small ones take three times as long
PREFETCH = 4  # readings that a worker is ahead: 2 MiB


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch of one rank."""

    step: int
    tokens: torch.Tensor  # uint16 or uint32 [b, context + 2]: [start] t1 … tN [end], as they are stored
    parts: torch.Tensor  # int64 [b]: number of the part in the recipe
    hash: int  # sum mod 2^64 of the sequences' hashes; summed over a step's micro-batches and ranks, the step's
    first: bool  # of its step, on this rank
    last: bool
    predict_end: bool

    def ids(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """int64 [b, context + 1], with predict_end [b, context + 2]: moved as stored, widened there; nobody waits."""
        return training_ids(self.tokens.to(device, non_blocking=True), self.predict_end)

    def parts_on(self, device: torch.device | str) -> torch.Tensor:
        """`parts` on a device; nobody waits for the way there."""
        return self.parts.to(device, non_blocking=True)

    def pin_memory(self) -> "MicroBatch":
        """A copy in pinned memory; DataLoader asks for it."""
        return replace(self, tokens=self.tokens.pin_memory(), parts=self.parts.pin_memory())


class Sequences(Position, Dataset[dict[str, torch.Tensor]]):
    """Sequences `consumed` … `total` - 1 of a stream, for DataLoader, StatefulDataLoader and the Hugging Face Trainer.

    `[i]` is {"input_ids", "labels"}, both int64 [context + 1] (+ 1 with predict_end): `[start] t1 … tN`; labels equal
    the inputs, as Hugging Face's models shift them by one themselves. Read it in order: i is the order of training.
    """

    def __init__(self, stream: Stream, total: int, consumed: int = 0, predict_end: bool = False) -> None:
        super().__init__(stream.recipe.id, total, consumed)
        self.stream, self.predict_end = stream, predict_end

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([i])[0]

    def __getitems__(self, wanted: list[int]) -> list[dict[str, torch.Tensor]]:
        """Several at once; DataLoader asks for a batch this way."""
        tokens = self.stream.sequences(self.numbers(wanted)).tokens
        ids = training_ids(torch.from_numpy(tokens), self.predict_end)
        return [{"input_ids": line, "labels": line.clone()} for line in ids]


def training_ids(tokens: torch.Tensor, predict_end: bool) -> torch.Tensor:
    """Stored ids [n, context + 2] -> int64 [n, context + 1], with the end id where it is to be predicted."""
    return (tokens if predict_end else tokens[:, :-1]).long()


def loader(
    stream: Stream,
    steps: range,
    rank: int,
    world: int,
    micro_sequences: int,
    workers: int,
    predict_end: bool,
    pinned: bool = False,
) -> Generator[MicroBatch, None, None]:
    """This rank's micro-batches of these steps, in order: as many for each step on every rank, and as even as can be.

    Close it where signals do no harm, as `reading` does, which ends the workers. UsageError when a rank would have no
    sequence; what goes wrong in a worker is raised here.
    """
    batch = stream.recipe.batch_sequences
    if batch < world:
        raise UsageError(f"a batch of {counted(batch, 'sequence')} is too small for {world} ranks; raise batch_tokens")
    if not 0 <= rank < world or micro_sequences < 1 or steps.step != 1:
        raise UsageError(f"rank {rank} of {world}, {steps} in micro-batches of {micro_sequences}: not possible")
    reader = _Reader(stream, steps, rank, world, micro_sequences, predict_end)
    return _batches(reader, workers, pinned)


@contextmanager
def reading(batches: Generator[MicroBatch, None, None]) -> Iterator[None]:
    """Closes a loader at the end. UserError where a worker was killed: torch raises that in the middle of anything."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise _gone(error) from None
    finally:
        batches.close()


def _batches(reader: "_Reader", workers: int, pinned: bool) -> Generator[MicroBatch, None, None]:
    """DataLoader hands reading i to worker i mod workers and gives them back in order."""
    over = RawValue("b", 0)
    made = DataLoader(
        reader,
        batch_size=None,
        num_workers=workers,
        pin_memory=pinned,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=partial(_read_on, over),
        generator=torch.Generator(),  # its seed for workers would be drawn from the model's generator otherwise
    )
    try:
        for found in _begun(made):  # named nowhere: it ends its workers as soon as it is left, also by an error
            if isinstance(found, UserError):
                raise found
            yield from found
    except (ConnectionError, EOFError) as error:  # it was killed as it handed a batch over
        raise _gone(error) from None
    finally:
        over.value = 1


def _begun(made: DataLoader[Any]) -> Iterator[Any]:
    """With its workers: a stop reaches none before it knows that it reads on."""
    with stops_wait():
        return iter(made)


def _gone(error: Exception) -> UserError:
    """What to tell of a killed worker; torch tells it no more, which it would in the middle of ending the run."""
    if threading.current_thread() is threading.main_thread():  # no other hears signals
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
    why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return UserError(
        f"a process that reads shards is gone ({why}), as when memory runs out;\n"
        "run the same command again to go on, with a smaller loader_workers if need be"
    )


def _read_on(over: Any, worker: int) -> None:
    """A stop often reaches all processes of a job at once; the trainer finishes its step first, however long that is,
    and needs its workers. It ends them by itself, by SIGTERM where they are slow (`over` is 1 then), and without it
    they end too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(1) if over.value else None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    """Ends this worker when the trainer is killed: it holds the trainer's connections open, so that other ranks would
    notice the loss only after the 5 s in which DataLoader does."""
    trainer = parent_process()
    if trainer is not None:
        wait([trainer.sentinel])
        os._exit(1)


class _Reader(Dataset[Any]):
    """Reading i of a rank, for any i: the micro-batches of a step, or some of them, from one look into the stream."""

    def __init__(
        self, stream: Stream, steps: range, rank: int, world: int, micro_sequences: int, predict_end: bool
    ) -> None:
        self._stream, self._steps, self._predict_end = stream, steps, predict_end
        batch = stream.recipe.batch_sequences
        self._first = rank * batch // world
        self._share = (rank + 1) * batch // world - self._first
        # as many on every rank, where weights that are cut are gathered in each
        most = -(-batch // world)
        self._per_step = min(-(-most // micro_sequences), batch // world)
        together = max(1, READ_TOKENS // (min(micro_sequences, most) * stream.context))
        self._readings = [range(self._per_step)[i : i + together] for i in range(0, self._per_step, together)]

    def __len__(self) -> int:
        return len(self._steps) * len(self._readings)

    def __getitem__(self, i: int) -> list[MicroBatch] | UserError:
        """Micro-batches, or what a user has to be told: an exception would reach them inside a worker's traceback."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        step, reading = divmod(i, len(self._readings))
        try:
            return self._read(self._steps[step], self._readings[reading])
        except UserError as error:
            return UserError(str(error))

    def _read(self, step: int, micros: range) -> list[MicroBatch]:
        start = step * self._stream.recipe.batch_sequences + self._first
        ends = [micro * self._share // self._per_step for micro in range(micros.start, micros.stop + 1)]
        read = self._stream.sequences(range(start + ends[0], start + ends[-1]))
        tokens, parts = torch.from_numpy(read.tokens), torch.from_numpy(read.parts)
        made = []
        for micro, first, end in zip(micros, ends, ends[1:], strict=False):
            own = slice(first - ends[0], end - ends[0])
            made.append(
                MicroBatch(
                    step=step,
                    tokens=tokens[own],
                    parts=parts[own],
                    hash=int(read.hashes[own].sum()) & MASK,
                    first=micro == 0,
                    last=micro == self._per_step - 1,
                    predict_end=self._predict_end,
                )
            )
        return made
