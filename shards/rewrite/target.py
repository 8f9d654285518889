"""Where a derived dataset may be written: a folder of its own, neither inside a dataset nor around what it is made of.

A target that has a plan was looked at when that was made.
"""

from collections.abc import Sequence

from toto.errors import UsageError
from toto.shards.commit import COMMITS, SHARDS, SOURCES
from toto.shards.leftovers import refuse, refuse_strangers
from toto.shards.snapshot import DATASET
from toto.shards.store import SCRATCH, LocalStore, Store, open_store

FOLDERS = (COMMITS, SHARDS, SOURCES, SCRATCH, "annotations", "plan")  # of a command that was killed early


def refuse_target(out: str, inputs: Sequence[str]) -> None:
    """UsageError where --out is empty, lies inside an input or a dataset, or has an input inside."""
    if not out.strip():
        raise UsageError("--out is empty; name a folder, or an fsspec URI")
    store = open_store(out)
    for uri in inputs:
        taken = open_store(uri)
        for inner, outer in ((store, taken), (taken, store)):
            if _inside(inner, outer):
                raise UsageError(f"{inner.uri} lies inside {outer.uri}; give --out a folder of its own")
    if isinstance(store, LocalStore):
        around = next((above for above in store.root.resolve().parents if (above / DATASET).is_file()), None)
        if around is not None:
            raise UsageError(f"{store.uri} lies inside the dataset {around}; give --out a folder of its own")


def refuse_foreign_files(store: Store) -> None:
    """UsageError where a target without a plan holds anything that no command of ours left there."""
    refuse_strangers(store)
    if isinstance(store, LocalStore) and store.root.is_dir():
        there = [path for path in sorted(store.root.iterdir()) if not path.name.startswith(".")]
        foreign = [path.name for path in there if path.name not in FOLDERS or not path.is_dir()]
        if foreign:
            refuse(store, foreign)


def _inside(inner: Store, outer: Store) -> bool:
    if isinstance(inner, LocalStore) and isinstance(outer, LocalStore):
        return outer.root.resolve() in inner.root.resolve().parents
    return inner.uri.rstrip("/").startswith(outer.uri.rstrip("/") + "/")
