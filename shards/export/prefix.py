"""An export under an fsspec URI: a file is uploaded, and removed here, when it is finished; meta.json is the last one.

    unfinished.json ─▶ the files, one by one ─▶ indexes, README.md, meta.json ─▶ unfinished.json goes

Whoever reads waits for meta.json. What a killed export left stands beside unfinished.json, and the next export to the
same place replaces it: then, and with --force, meta.json goes first. Only an export's own files are removed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from toto.errors import UserError
from toto.files import cache_folder
from toto.shards.export.earlier import UNFINISHED, refuse_taken
from toto.shards.export.folder import own_folder
from toto.shards.export.outgoing import META, Outgoing
from toto.shards.store import SCRATCH, RemoteStore
from toto.shards.store.owner import LOCK, only_run

ONE_AT_A_TIME = "only one export at a time is allowed to one place; wait for it, or choose another --out"


@contextmanager
def whole_prefix(store: RemoteStore, begun: Callable[[Sequence[str]], bytes], force: bool) -> Iterator[Outgoing]:
    """An empty folder on this machine; what is finished there appears in the store. `begun` makes unfinished.json of
    the names that are replaced. UserError where the store holds something else, an export that was not to be replaced,
    or one that is going on."""
    _refuse_taken(store, force)
    with only_run(store, ONE_AT_A_TIME) as beat, own_folder(cache_folder() / SCRATCH / "export") as folder:
        there = _refuse_taken(store, force)
        store.write(UNFINISHED, begun(there))
        _clear(store, there)
        outgoing = Outgoing(folder, store.publish)
        try:
            yield outgoing
            beat.check()
            outgoing.finish()
        except BaseException:
            if not beat.lost:  # else what is there is somebody else's
                _take_back(store, outgoing.names)
            raise
        store.remove(UNFINISHED)


def _refuse_taken(store: RemoteStore, force: bool) -> list[str]:
    """The names of what an earlier export left there."""
    there = [name for name, *_ in store.tree() if name != LOCK]
    refuse_taken(store.uri, there, store.read, force)
    return there


def _clear(store: RemoteStore, names: Sequence[str]) -> None:
    """Removes an earlier export, first what says that it is whole; and uploads that never ended."""
    for name in sorted(names, key=lambda name: (name != META, name)):
        if name != UNFINISHED:
            store.remove(name)
    with suppress(UserError):  # not everybody may list them; they do no harm but to the bill
        store.abort_uploads(0)


def _take_back(store: RemoteStore, names: Sequence[str]) -> None:
    """Removes what was uploaded, the last one first, each in one try: a store that does not answer must not hold up
    Ctrl-C. What stays is known by unfinished.json; what others put there meanwhile is not touched."""
    with suppress(Exception):
        for name in reversed(names):
            with suppress(FileNotFoundError):
                store.fs.rm_file(store.place(name))
