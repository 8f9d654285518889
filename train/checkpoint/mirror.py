"""A run under a URI (`--out s3://bucket/run`): a working folder on this machine, and the same files there.

    there ─pull─▶ working folder ─train─▶ files as they are finished ─upload─▶ there; checkpoint.json of each last

What is there counts: `pull` drops whatever else the working folder holds, so a run goes on from there on any machine.
A checkpoint goes there as it came: checkpoint.json first. One run at a time writes there, by a lock with a beat.
"""

import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

from toto.errors import UserError
from toto.files import cache_folder, write_whole
from toto.shards.store import RemoteStore, open_store
from toto.shards.store.owner import LOCK, WATCH_S, Beat, only_run
from toto.train.alone import is_held
from toto.train.checkpoint.fetch import fetch, found_there
from toto.train.checkpoint.folder import FACTS, STATE, clean, found, name_of, retained, step_of

UNUSED_S = 7 * 86_400.0  # of a machine that does not hold the run's lock: its folder changes with each checkpoint
ADVICE = "only one run at a time may write there; wait for it, or choose another --out"


class Mirror:
    """The files of one run under a URI that is no folder of this machine."""

    def __init__(self, uri: str) -> None:
        store = open_store(uri)
        assert isinstance(store, RemoteStore), f"{uri} is no folder"
        self.store = store
        self.newest: str | None = None  # the newest checkpoint that is known to be there
        self._held: Beat | None = None
        self._sent: dict[str, tuple[int, int]] = {}  # name -> time and size of the file when it was uploaded

    @property
    def folder(self) -> Path:
        """The working folder of this URI on this machine."""
        return cache_folder() / "runs" / fsspec.utils.tokenize(self.store.uri)[:16]

    def place(self, name: str) -> str:
        """The URI of a file or a checkpoint, for people."""
        return f"{self.store.uri}/{name}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """This process alone writes there; UserError when another one does. What killed ones left is removed; at the
        end the log is uploaded, however the run ended."""
        if self.store.exists(LOCK):
            sys.stderr.write(
                f"{self.store.uri} has the lock of a run; watching for {WATCH_S:.0f} s whether it is alive\n"
            )
        with only_run(self.store, ADVICE) as self._held:
            self._tidy()
            try:
                yield
            finally:
                with suppress(UserError, OSError):
                    self.push()

    def pull(self, names: Sequence[str]) -> None:
        """Makes the working folder what is there: these files, and the newest checkpoint. UserError where it is
        damaged; tensors are verified when they are loaded."""
        folder = self.folder
        clean(folder)
        _remove_unused_beside(folder)
        there = found_there(self.store)[-1:]
        for path in found(folder):
            if [path.name] != there or (path / FACTS).read_bytes() != self.store.read(f"{path.name}/{FACTS}"):
                shutil.rmtree(path)
        for name in names:
            try:
                write_whole(folder / name, self.store.read(name))
            except FileNotFoundError:
                (folder / name).unlink(missing_ok=True)
        for name in there:
            if not (folder / name).is_dir():
                fetch(self.store, name, folder / name)
            self.newest = self.place(name)

    def push(self) -> None:
        """Uploads every file of the working folder that changed, but for checkpoints."""
        self._refuse_others()
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            unfinished = any(part.startswith(".") for part in name.parts)
            if path.is_file() and not unfinished and step_of(name.parts[0]) is None:
                with suppress(FileNotFoundError):  # removed meanwhile, by the training that goes on
                    self._push(path, name.as_posix())

    def _push(self, path: Path, name: str) -> None:
        state = (path.stat().st_mtime_ns, path.stat().st_size)
        if self._sent.get(name) == state:
            return
        scratch = self.store.scratch()
        try:
            shutil.copyfile(path, scratch)  # the log grows meanwhile
            self.store.upload(scratch, name)
        finally:
            scratch.unlink(missing_ok=True)
        self._sent[name] = state

    def upload(self, path: Path, name: str) -> None:
        """Uploads a finished file of a checkpoint."""
        self.store.upload(path, name)

    def publish(self, name: str, facts: bytes) -> None:
        """Makes a checkpoint of files that are all there; the log goes before it."""
        self.push()
        self.store.write(f"{name}/{FACTS}", facts)
        self.newest = self.place(name)

    def remove(self, step: int) -> None:
        """Removes a checkpoint, whole or not; nothing happens where there is none."""
        self._refuse_others()
        self.store.remove(f"{name_of(step)}/{FACTS}")
        for name in self.store.list(f"{name_of(step)}/{STATE}"):
            self.store.remove(name)

    def retain(self, newest: int, every: int) -> None:
        """Removes old checkpoints there, as `folder.retain` does here."""
        steps = [step_of(name) or 0 for name in found_there(self.store)]
        for step in sorted(set(steps) - retained(steps, newest, every)):
            self.remove(step)

    def _tidy(self) -> None:
        """Removes what killed runs left there."""
        self.store.abort_uploads(older_than_s=-math.inf)  # all of them, whatever the time is there
        whole = found_there(self.store)
        for name in {path.split("/")[0] for path, *_ in self.store.tree()} - set(whole):
            step = step_of(name)
            if step is not None:
                self.remove(step)

    def _refuse_others(self) -> None:
        if self._held:
            self._held.check()


def _remove_unused_beside(folder: Path) -> None:
    """Removes working folders that no run has used for a week: all that was finished in them is in their stores."""
    for path in folder.parent.glob("*"):
        with suppress(FileNotFoundError):  # another run removes it too
            if path != folder and time.time() - path.stat().st_mtime > UNUSED_S and not is_held(path):
                shutil.rmtree(path, ignore_errors=True)
