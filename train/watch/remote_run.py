"""What a run under a URI logged, brought to this machine: s3://bucket/run -> a folder like that of a run, for a moment.

run.json  recipe.json  metrics.jsonl  and, of the newest checkpoint, checkpoint.json alone
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toto.files import write_whole
from toto.shards.store import RemoteStore, open_store
from toto.train.checkpoint.fetch import FACTS_BYTES, check_size, found_there, passing_folder
from toto.train.checkpoint.folder import FACTS
from toto.train.run import KEPT
from toto.train.watch.metrics import FILE

LOG_BYTES = 1 << 34  # of metrics.jsonl: twenty million steps


@contextmanager
def log_here(uri: str) -> Iterator[Path]:
    """A folder with those of the files that are there; it goes at the end. UserError where the store refuses."""
    store = open_store(uri)
    assert isinstance(store, RemoteStore), f"{uri} is no URI"
    newest = [f"{name}/{FACTS}" for name in found_there(store)[-1:]]
    with passing_folder() as folder:
        for name in (*KEPT, *newest):
            with suppress(FileNotFoundError):  # a run that has just begun, or a checkpoint that was removed meanwhile
                check_size(store, name, LOG_BYTES if name == FILE else FACTS_BYTES)
                if name == FILE:
                    store.download(name, folder / name)
                else:
                    write_whole(folder / name, store.read(name))
        yield folder
