"""Checkpoints beside the training: copied at the step boundary, written by a thread while the next steps go on.

    step N ─copy─▶ step N + 1, N + 2, …                      ─▶ the next checkpoint waits for this one
             └───▶ write, hash, upload, publish, retention

At most one is on its way. What goes wrong with it is told at a step boundary, by all processes at the same one.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from toto.config import RecipeConfig
from toto.errors import UserError
from toto.train.checkpoint.folder import retain
from toto.train.checkpoint.mirror import Mirror
from toto.train.checkpoint.tensors import Copies, Tensors, bytes_of, share_of
from toto.train.checkpoint.writing import Failed, save, together
from toto.train.hardware import memory_bytes
from toto.train.parallel import Team

FAILED = 1 << 16  # among the numbers of signals


class Saver:
    """`with Saver(…) as saver:` saves a run's checkpoints and removes old ones; at the end none is on its way."""

    def __init__(
        self, run: Path, recipe: RecipeConfig, facts: dict[str, Any], team: Team, mirror: Mirror | None = None
    ) -> None:
        self._run, self._recipe, self._facts, self._mirror = run, recipe, facts, mirror
        self._team = team.aside() if recipe.checkpoint_async != "off" else team
        self._copies = Copies()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, tensors: Tensors) -> None:
        """Writes the checkpoint after `step` steps, or begins to; it may be changed when this returns.

        UserError when this one, or the one that was on its way, could not be written.
        """
        self.wait()
        own = share_of(tensors, self._team)
        if not is_async(self._recipe, tensors, self._team):
            return self._save(step, own)
        copies, copied = self._copies.take(own)
        self._thread = threading.Thread(target=self._save_aside, args=(step, copies, copied), daemon=True)
        self._thread.start()

    @property
    def failed(self) -> int:
        """FAILED when the one that was on its way could not be written, which `wait` tells; 0 else."""
        return FAILED if self._error else 0

    def wait(self) -> None:
        """Returns when no checkpoint is on its way; raises what went wrong with the one that was."""
        if self._thread:
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error:
            raise error

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.wait()
        elif isinstance(error, UserError) or (self._team.world == 1 and not isinstance(error, KeyboardInterrupt)):
            with suppress(Exception):
                self.wait()  # what is on its way is from before the error, and good
        # Else nothing is waited for: Ctrl-C here is a second one, and a process that is gone will not do its part.

    def _save_aside(self, step: int, copies: Tensors, copied: Callable[[], None]) -> None:
        try:
            if self._team.device.type == "cuda":
                torch.cuda.set_device(self._team.device)  # a thread begins with the first one, and would take from it
            copied()
            self._save(step, copies)
        except BaseException as error:
            self._error = error

    def _save(self, step: int, own: Tensors) -> None:
        save(self._run, step, own, self._facts, self._team, self._mirror)
        try:
            together(self._team, lambda: self._retain() if self._team.is_first else None)
        except Failed as failed:
            raise UserError(f"{self._run}: old checkpoints cannot be removed ({failed})") from None

    def _retain(self) -> None:
        newest, every = self._recipe.keep_checkpoints, self._recipe.keep_every
        if self._mirror:
            self._mirror.retain(newest, every)
            newest, every = 1, 0  # of the copies on this machine
        retain(self._run, newest, every)


def is_async(recipe: RecipeConfig, tensors: Tensors, team: Team) -> bool:
    """What the recipe says; `auto`: where the copies take less than half of the machine's memory."""
    if recipe.checkpoint_async != "auto":
        return recipe.checkpoint_async == "on"
    too_large = bytes_of(tensors) > memory_bytes(torch.device("cpu"))
    return not team.agree(int(too_large))
